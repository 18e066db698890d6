"""A client of the inference endpoint. It calls the endpoint as every user does, so that the evaluation measures what
users get."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import quote

import httpx
from opentelemetry.propagate import inject

from services.evaluator.domain.answers import Answer
from services.evaluator.domain.messages import message_text
from services.evaluator.domain.questions.prompts import Prompt
from services.evaluator.domain.tool_calls import calls_of, encodable
from services.evaluator.reach import PATIENCE, named
from shared.conversation.thoughts import parted
from shared.errors import ConfigError, TransientError
from shared.events.limits import DEFAULT_PROJECT
from shared.retry import Backoff
from shared.settings import Settings

BACKOFF = Backoff(0.5, 15.0)
SLEEPING, STARTING = "model_sleeping", "service_unavailable"
"""The codes of our gateway."""
BUSY = (408, 429)
PREFER = {"prefer": "wait=5"}
"""Our gateway waits no longer for a model server that starts (RFC 7240). The evaluation comes again instead."""
AT_A_TIME, MOST_AT_A_TIME = 16, 256
"""How many questions are asked at a time of an endpoint that does not say how many it has room for; and the most."""
FEWEST_TOKENS = 16
"""A prompt that leaves less room than this for the answer is too long."""
_TOO_LONG = re.compile(r"context.length|model.length|too long|too large|longer than|maximum length", re.IGNORECASE)
_TOOL_CHOICE = re.compile(r"tool[ _-]choice", re.IGNORECASE)


class ModelSleeps(TransientError):
    """The endpoint works, but a training has its GPU."""


class ModelUnknown(ConfigError):
    """The endpoint does not know the model."""


class KeyRefused(ConfigError):
    """The endpoint does not accept the API key."""


def connect(settings: Settings, project: str = DEFAULT_PROJECT) -> httpx.AsyncClient:
    """An HTTP client of `inference.url`, for at most `MOST_AT_A_TIME` questions at a time. It acts in `project`,
    because nobody else sees its models."""
    key = settings.evaluator.api_key
    headers = {"authorization": f"Bearer {key.get_secret_value()}"} if key else {}
    if project != DEFAULT_PROJECT:
        headers["openai-project"] = project
    return httpx.AsyncClient(
        base_url=settings.inference.url.rstrip("/") + "/v1",
        headers=headers,
        timeout=httpx.Timeout(settings.evaluator.timeout_seconds, connect=10),
        limits=httpx.Limits(max_connections=MOST_AT_A_TIME + 1),  # one to ask how it is, see reach.py
    )


class Endpoint:
    """Asks questions, and tries again while the endpoint is busy or restarts."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`patience`: for how many seconds a request is tried again after 429, when the endpoint is busy. After 5xx and
        broken connections it is tried again for `reach.PATIENCE` seconds."""
        self._http = http
        self._patience = patience
        self._clock = clock
        self._sleep = sleep
        self.tools_unparsed = False
        """The server has no tool parser, so `tool_choice` is `none` and tool calls come back in the text."""

    async def ask(
        self,
        model: str,
        prompts: Sequence[Prompt],
        max_tokens: int,
        *,
        thinking: int = 0,
        patience: float | None = None,
    ) -> Answer:
        """The model's answer to the first of `prompts` that it takes and that fits into its context, at temperature 0.

        If even the last prompt leaves no room for `max_tokens`, they are halved until it fits. An answer that is cut in
        the middle of its thoughts is asked for again with `thinking` more tokens, or as many as fit. If the endpoint
        refuses the request, the answer is empty and has an `error`.

        Raises:
            ModelSleeps: a training has the GPU.
            TransientError: the endpoint was busy or broken for too long; `patience` replaces both limits.
            KeyRefused: the endpoint does not accept the API key.
            ModelUnknown: the endpoint does not know the model.
            ConfigError: the endpoint does not speak the OpenAI protocol.
        """
        try:
            return await self._asked(model, prompts, max_tokens, thinking, patience)
        except NotOpenAi as error:
            raise ConfigError(f"{named(self._http)} is not that of an OpenAI server: {error}") from None

    async def room(self, base: str) -> int:
        """How many questions the endpoint can take at a time beside its users, as the card of the model `base` says."""
        try:
            response = await self._http.get(f"/models/{base}", headers=PREFER)
            said = response.json()["background_requests"]
        except (httpx.HTTPError, ValueError, LookupError, TypeError):  # an endpoint of others
            return AT_A_TIME
        return min(said, MOST_AT_A_TIME) if isinstance(said, int) and said >= 1 else AT_A_TIME

    async def champion(self, alias: str) -> str | None:
        """The exact id of the model that the alias names; None: it names none, or the endpoint knows no aliases.

        Raises:
            TransientError: the endpoint does not say. A model must not be promoted over one that nobody looked for.
        """
        try:
            response = await self._http.get(f"/models/{quote(alias, safe='')}", headers=PREFER)
        except httpx.HTTPError as error:
            raise TransientError(f"{named(self._http)} does not answer: {type(error).__name__}") from None
        if response.status_code in BUSY or response.status_code >= 500:
            raise TransientError(f"{named(self._http)} answers {response.status_code}")
        try:
            root = response.json()["root"]
        except (ValueError, LookupError, TypeError):
            return None
        return root if isinstance(root, str) and root != alias and not response.is_error else None

    async def _asked(
        self, model: str, prompts: Sequence[Prompt], max_tokens: int, thinking: int, patience: float | None
    ) -> Answer:
        fallback = 0
        response, seconds = await self._post(model, prompts[0], max_tokens, patience)
        # a template may also refuse solved calls that no result follows
        while fallback < len(prompts) - 1 and (response.status_code == 400 or _lacks_room(response, max_tokens)):
            fallback += 1
            response, seconds = await self._post(model, prompts[fallback], max_tokens, patience)
        while _too_long(response) and max_tokens >= 2 * FEWEST_TOKENS:
            max_tokens //= 2
            response, seconds = await self._post(model, prompts[fallback], max_tokens, patience)
        if thinking and _thinks_too_long(response):
            longer, took = await self._post(model, prompts[fallback], max_tokens + thinking, patience)
            while _too_long(longer) and thinking >= 2 * FEWEST_TOKENS:
                thinking //= 2
                longer, took = await self._post(model, prompts[fallback], max_tokens + thinking, patience)
            if not longer.is_error:
                response, seconds = longer, took
        if response.status_code == 404:
            raise ModelUnknown(
                f"{named(self._http)} does not know the model {model}: it must be that of this stack, with the same "
                "TUNESTREAM_MODEL__ID and object store"
            )
        if response.status_code in (401, 403):
            raise KeyRefused(
                f"the endpoint refuses the evaluator ({response.status_code}): set TUNESTREAM_EVALUATOR__API_KEY "
                "to one of TUNESTREAM_INFERENCE__API_KEYS"
            )
        if response.is_error:
            error = f"{response.status_code}: {_message(response)}"
            return Answer(error=error, fallback=fallback, latency_seconds=seconds)
        return _answer(response, fallback, seconds)

    async def _post(
        self, model: str, prompt: Prompt, max_tokens: int, patience: float | None
    ) -> tuple[httpx.Response, float]:
        """Send the request until the response is one that another try would not change. Returns that response, and the
        seconds it took."""
        failures = 0
        busy_until = self._clock() + (self._patience if patience is None else patience)
        broken_until = None
        while True:
            wait, busy = None, False
            started = self._clock()
            try:
                response = await self._http.post(
                    "/chat/completions" if prompt.text is None else "/completions",
                    json=self._body(model, prompt, max_tokens),
                    headers=PREFER | _trace_headers(),
                )
            except (httpx.ReadTimeout, httpx.WriteTimeout):
                raise TransientError(
                    f"{named(self._http)} took longer than TUNESTREAM_EVALUATOR__TIMEOUT_SECONDS for one answer"
                ) from None
            except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.TooManyRedirects) as error:
                raise ConfigError(f"{named(self._http)} cannot be asked: {type(error).__name__}") from None
            except httpx.RequestError as error:
                trouble = f"does not answer: {type(error).__name__}"
            else:
                if response.status_code not in BUSY and response.status_code < 500:
                    if prompt.tools and not self.tools_unparsed and _lacks_tool_parser(response):
                        self.tools_unparsed = True
                        continue
                    return response, self._clock() - started
                code = _code(response)
                if code == SLEEPING:
                    raise ModelSleeps(
                        f"a training has the GPU of {named(self._http)}; its model sleeps until the training is over"
                    )
                trouble = f"answers {response.status_code}"
                if code == STARTING:
                    trouble += ": its model server does not answer yet"
                wait = _retry_after(response)
                busy = response.status_code in BUSY
            failures += 1
            wait = BACKOFF.jittered(failures) if wait is None else wait
            if busy:
                broken_until = None
            elif broken_until is None:
                broken_until = self._clock() + (PATIENCE if patience is None else patience)
            if self._clock() + wait > (busy_until if broken_until is None else broken_until):
                raise TransientError(f"{named(self._http)} {trouble}")
            await self._sleep(wait)

    def _body(self, model: str, prompt: Prompt, max_tokens: int) -> dict[str, Any]:
        body: dict[str, Any] = {"model": model, "temperature": 0, "max_tokens": max_tokens}
        if prompt.stop:
            body["stop"] = list(prompt.stop)
        if prompt.text is not None:
            return {**body, "prompt": prompt.text}
        if prompt.tools:
            body["tools"] = list(prompt.tools)
            body["tool_choice"] = "none" if self.tools_unparsed else "auto"
        return {**body, "messages": list(prompt.messages)}


def _trace_headers() -> dict[str, str]:
    """The `traceparent` header that makes the request a part of the job's trace."""
    headers: dict[str, str] = {}
    inject(headers)
    return headers


class NotOpenAi(Exception):
    """An answer that is not in the expected form. The text says what broke."""


def _answer(response: httpx.Response, fallback: int, seconds: float) -> Answer:
    try:
        body = response.json()
        choice = body["choices"][0]
        used = body.get("usage") or {}
        message = {} if "text" in choice else choice["message"]
        text = encodable(choice["text"] if "text" in choice else message_text(message))
        parsed = bool(message.get("reasoning_content") or message.get("reasoning"))
        return Answer(
            text=text,
            tool_calls=calls_of(message),
            finish_reason=choice.get("finish_reason"),
            cut_in_thoughts=choice.get("finish_reason") == "length" and (parted(text).cut or (parsed and not text)),
            fallback=fallback,
            prompt_tokens=used.get("prompt_tokens") or 0,
            completion_tokens=used.get("completion_tokens") or 0,
            latency_seconds=seconds,
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise NotOpenAi(type(error).__name__) from error


def _too_long(response: httpx.Response) -> bool:
    if response.status_code == 413:
        return True
    return response.status_code == 400 and bool(_TOO_LONG.search(response.text))


def _code(response: httpx.Response) -> object:
    """The code of a 503 in OpenAI's form, if it is one."""
    try:
        return response.json()["error"]["code"] if response.status_code == 503 else None
    except (ValueError, LookupError, TypeError):
        return None


def _lacks_room(response: httpx.Response, max_tokens: int) -> bool:
    """The prompt was refused, or the server cut the answer short of `max_tokens` because its context was full."""
    if response.is_error:
        return _too_long(response)
    answer = _answer(response, 0, 0.0)
    return answer.finish_reason == "length" and 0 < answer.completion_tokens < max_tokens


def _thinks_too_long(response: httpx.Response) -> bool:
    """The answer was cut at the limit before its thoughts ended, be they in the text or parsed by the server."""
    return not response.is_error and _answer(response, 0, 0.0).cut_in_thoughts


def _lacks_tool_parser(response: httpx.Response) -> bool:
    return response.status_code == 400 and bool(_TOOL_CHOICE.search(response.text))


def _message(response: httpx.Response) -> str:
    """The message of an OpenAI error, or the first 500 characters of any other answer."""
    try:
        message = response.json()["error"]["message"]
    except (ValueError, LookupError, TypeError):
        message = response.text
    return encodable(str(message)[:500])


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):  # absent, or a date: the usual back-off applies
        return None

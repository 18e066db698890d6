"""A client of any OpenAI-compatible endpoint that streams its answers, so that the time to the first token is known."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import httpx

from services.evaluator.domain.answers import Answer
from services.evaluator.domain.questions.prompts import Prompt
from services.evaluator.domain.tool_calls import as_lines, calls_of, encodable
from shared.retry import Backoff
from shared.settings.endpoints import ForeignEndpoint

BACKOFF = Backoff(1.0, 20.0)
PATIENCE = 60.0
"""For how many seconds one question is tried again while the endpoint is busy or broken."""


def foreign(endpoint: ForeignEndpoint, timeout: float) -> httpx.AsyncClient:
    """An HTTP client of an endpoint of others, with its key. It follows no redirection."""
    key = endpoint.api_key
    return httpx.AsyncClient(
        base_url=endpoint.base_url.rstrip("/"),
        headers={"authorization": f"Bearer {key.get_secret_value()}"} if key else {},
        timeout=httpx.Timeout(timeout, connect=10),
    )


class RivalTrouble(Exception):
    """The endpoint cannot be asked, in one line. It ends the comparison with this rival, and not the evaluation."""


class StreamingEndpoint:
    """Asks questions of one endpoint."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        foreign: bool = True,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`foreign`: it serves chats only, so a text that is to be continued is sent as the message of a user."""
        self._http = http
        self._foreign = foreign
        self._clock = clock
        self._sleep = sleep
        self._left_out: set[str] = set()
        """Parameters that the endpoint has refused."""

    async def ask(
        self,
        model: str,
        prompts: Sequence[Prompt],
        max_tokens: int,
        *,
        thinking: int = 0,
        patience: float | None = None,
    ) -> Answer:
        """The model's answer to the first of `prompts`, at temperature 0 if the endpoint takes that.

        Raises:
            RivalTrouble: the endpoint refuses the key or the model, or is busy or broken for longer than `patience`.
        """
        until = self._clock() + (PATIENCE if patience is None else patience)
        failures = 0
        while True:
            try:
                return await self._asked(model, prompts[0], max_tokens + thinking)
            except _Again as again:
                if again.at_once:
                    continue
                trouble, wait = str(again), again.wait
            except httpx.HTTPError as error:
                trouble, wait = f"does not answer: {type(error).__name__}", None
            failures += 1
            wait = BACKOFF.jittered(failures) if wait is None else wait
            if self._clock() + wait > until:
                raise RivalTrouble(f"the endpoint {trouble}")
            await self._sleep(wait)

    async def _asked(self, model: str, prompt: Prompt, max_tokens: int) -> Answer:
        text = prompt.text is not None and not self._foreign
        started = self._clock()
        async with self._http.stream(
            "POST", "/completions" if text else "/chat/completions", json=self._body(model, prompt, max_tokens)
        ) as response:
            if response.is_error:
                await response.aread()
                return self._refused(response, self._clock() - started)
            made = _Made()
            async for event in _events(response):
                if made.take(event) and made.first is None:
                    made.first = self._clock() - started
            return made.answer(self._clock() - started)

    def _refused(self, response: httpx.Response, seconds: float) -> Answer:
        said = _message(response)
        if response.status_code in (408, 429) or response.status_code >= 500:
            raise _Again(f"answers {response.status_code}", wait=_retry_after(response))
        if response.status_code in (401, 403, 404):
            raise RivalTrouble(f"the endpoint refuses the request ({response.status_code}): {said}")
        for name in ("max_tokens", "temperature", "stream_options", "stop"):
            if name in said and name not in self._left_out:
                self._left_out.add(name)
                raise _Again("refuses a parameter", at_once=True)
        return Answer(error=f"{response.status_code}: {said}", latency_seconds=seconds)

    def _body(self, model: str, prompt: Prompt, max_tokens: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": model,
            "temperature": 0,
            "max_tokens": max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if prompt.stop:
            body["stop"] = list(prompt.stop)
        for name in self._left_out & body.keys():
            del body[name]
        if "max_tokens" in self._left_out:  # newer models of OpenAI want it under its newer name
            body["max_completion_tokens"] = max_tokens
        if prompt.text is not None and not self._foreign:
            return {**body, "prompt": prompt.text}
        messages = [{"role": "user", "content": prompt.text}] if prompt.text is not None else list(prompt.messages)
        return {**body, "messages": messages, **({"tools": list(prompt.tools)} if prompt.tools else {})}


class _Again(Exception):
    """The request is to be sent again: at once in another form, or after a pause."""

    def __init__(self, why: str, *, at_once: bool = False, wait: float | None = None) -> None:
        super().__init__(why)
        self.at_once = at_once
        self.wait = wait


class _Made:
    """An answer in the making."""

    def __init__(self) -> None:
        self.first: float | None = None
        self._text: list[str] = []
        self._calls: dict[int, dict[str, str]] = {}
        self._finish: str | None = None
        self._usage: dict[str, Any] = {}

    def take(self, event: dict[str, Any]) -> bool:
        """Add what an event brings; whether that is a token."""
        self._usage = event.get("usage") or self._usage
        token = False
        for choice in event.get("choices") or ():
            self._finish = choice.get("finish_reason") or self._finish
            delta = choice.get("delta") or {}
            said = choice.get("text") or delta.get("content") or ""
            self._text.append(said)
            for call in delta.get("tool_calls") or ():
                known = self._calls.setdefault(call.get("index") or 0, {"name": "", "arguments": ""})
                for key, value in (call.get("function") or {}).items():
                    known[key] = known.get(key, "") + (value or "")
            token = token or bool(said or delta.get("tool_calls") or delta.get("reasoning_content"))
        return token

    def answer(self, seconds: float) -> Answer:
        calls = calls_of({"tool_calls": [{"function": call} for _, call in sorted(self._calls.items())]})
        return Answer(
            text=encodable(as_lines("".join(self._text), calls)),
            tool_calls=calls,
            finish_reason=self._finish,
            prompt_tokens=self._usage.get("prompt_tokens") or 0,
            completion_tokens=self._usage.get("completion_tokens") or 0,
            latency_seconds=seconds,
            first_token_seconds=self.first,
        )


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream. One that breaks off raises, and is asked for again."""
    ended = False
    async for line in response.aiter_lines():
        data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
        ended = ended or data == "[DONE]"
        if not data or ended:
            continue
        try:
            event = json.loads(data)
        except ValueError:
            raise RivalTrouble("the endpoint does not stream as OpenAI does") from None
        if isinstance(event, dict):
            if event.get("error"):
                raise _Again("breaks off its answer")
            yield event
    if not ended:
        raise _Again("breaks off its answer")


def _message(response: httpx.Response) -> str:
    try:
        return encodable(str(response.json()["error"]["message"])[:300])
    except (ValueError, LookupError, TypeError):
        return encodable(response.text[:300])


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None

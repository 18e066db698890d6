"""A client of vLLM's render server (`vllm launch render`): requests become tokens, and tokens become messages.

vLLM 0.26 and 0.32 have these routes, and the server that generates has them, too. The client may be used by several
threads at once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Event
from typing import Any

import httpx

from services.validate.domain.served import Given, Turn
from shared.errors import Cancelled, TransientError

CONNECTIONS = 8
PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)  # seconds between the tries of a request while the server is away
TIMEOUT = 15.0  # seconds of silence; a cancelled job waits for it at most once
CONNECT_TIMEOUT = 5.0
PATIENCE = 20.0  # seconds for which a request is tried again; without it a server that hangs would take minutes

_TOO_LONG = re.compile(r"context length|max_model_len", re.IGNORECASE)
_TOOL_CHOICE = re.compile(r"tool[ _-]choice", re.IGNORECASE)


class Silent(TransientError):
    """The render server does not answer."""


class Unasked(Exception):
    """The server cannot be asked this at all. The text says why."""


class Refused(Exception):
    """The server refuses a request for what is in it. Its reason is not kept, because it may quote the row."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class TooLong(Exception):
    """The request is longer than what the server can read."""


class RenderServer:
    """One render server. `tools_parsed` becomes False when it says that it has no tool parser."""

    def __init__(
        self,
        url: str,
        model: str,
        stop: Event,
        pauses: Iterable[float] = PAUSES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`model`: the name under which it serves the base. `stop`: ends all waiting. `pauses`: seconds between the
        tries of a request."""
        self.model = model
        self.tools_parsed = True
        self._pauses = tuple(pauses)
        self._stop = stop
        self._clock = clock
        timeout = httpx.Timeout(TIMEOUT, connect=CONNECT_TIMEOUT)
        self._http = httpx.Client(base_url=url.rstrip("/"), timeout=timeout, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def version(self, seconds: float, pause: float = 0.5) -> str:
        """vLLM's version, once the server is up and serves `model`.

        Raises:
            Silent: it does not answer within `seconds`.
            Unasked: it serves another model, or it is no vLLM.
            Cancelled: `stop` was set.
        """
        served = self._json("GET", "/v1/models", self._until(seconds, pause), patience=seconds)
        known = [card.get("id") for card in served.get("data", ())] if isinstance(served, dict) else []
        if self.model not in known:
            raise Unasked(f"the render server does not serve {self.model}")
        with suppress(Unasked, Refused):
            return str(self._json("GET", "/version", self._pauses)["version"])
        return "of unknown version"

    def prompt(self, turn: Turn) -> list[int]:
        """The token ids of the prompt to which the turn is the answer.

        Raises:
            Refused, TooLong: see there.
            Silent: the server is away.
            Unasked: it has no such route.
        """
        if turn.text is not None:
            made = self._post("/v1/completions/render", {"model": self.model, "prompt": turn.text})
            with _expected():
                return _ids(made[0])
        while True:
            parsed = self.tools_parsed
            try:
                made = self._post("/v1/chat/completions/render", self._request(turn, parsed))
                with _expected():
                    return _ids(made)
            except _NoToolParser:
                if not parsed:
                    raise
                self.tools_parsed = False

    def message(self, turn: Turn, said: Sequence[int]) -> Given:
        """What a client gets for the tokens `said`. Raises like `prompt`."""
        if not said:
            return Given("", None, ())
        choice = {"index": 0, "token_ids": list(said), "finish_reason": "stop"}
        # vLLM 0.32 reads the prompt, because some parsers look whether it has opened thoughts; 0.26 ignores it
        generated = {"request_id": "tunestream", "choices": [choice], "prompt_token_ids": turn.prompt}
        if turn.text is not None:
            body: dict[str, Any] = {"model": self.model, "generate_responses": [generated]}
            made = self._post("/v1/completions/derender", body)
            with _expected():
                return Given(made["choices"][0]["text"] or "", None, ())
        body = {"model": self.model, "generate_response": generated}
        body["chat_request"] = self._request(turn, self.tools_parsed)
        made = self._post("/v1/chat/completions/derender", body)
        with _expected():
            return _given(made["choices"][0]["message"])

    def _request(self, turn: Turn, parsed: bool) -> dict[str, Any]:
        """The request of a client. The template's own arguments are left out: a server has them from its start."""
        body: dict[str, Any] = {"model": self.model, "messages": list(turn.messages)}
        if turn.tools:
            body |= {"tools": list(turn.tools), "tool_choice": "auto" if parsed else "none"}
        return body

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._json("POST", path, self._pauses, body)

    def _until(self, seconds: float, pause: float) -> Iterator[float]:
        deadline = self._clock() + seconds
        while self._clock() < deadline:
            yield pause

    def _json(
        self,
        method: str,
        path: str,
        pauses: Iterable[float],
        body: dict[str, Any] | None = None,
        patience: float = PATIENCE,
    ) -> Any:
        waits = iter(pauses)
        deadline = self._clock() + patience
        timeout = httpx.Timeout(min(TIMEOUT, max(patience, 1.0)), connect=CONNECT_TIMEOUT)
        while True:
            if self._stop.is_set():
                raise Cancelled
            try:
                response = self._http.request(method, path, json=body, timeout=timeout)
            except httpx.RequestError as error:
                trouble = f"no answer ({type(error).__name__})"
            else:
                if response.status_code < 500:
                    return _answer(response, path)
                trouble = f"status {response.status_code}"
            pause = next(waits, None)
            if pause is None or self._clock() > deadline:
                raise Silent(f"the render server is away: {trouble}")
            self._stop.wait(pause)


class _NoToolParser(Refused):
    """The server was started without a tool parser."""


def _answer(response: httpx.Response, path: str) -> Any:
    try:
        answer = response.json()
    except ValueError:
        raise Unasked(f"what answers at {path} is no vLLM") from None
    if not response.is_error:
        return answer
    if response.status_code == 404 and "error" not in answer:
        raise Unasked(f"the render server has no {path}, which vLLM has from 0.26 on")
    if response.status_code == 404:
        raise Unasked("the render server does not serve this base any more")
    if _TOO_LONG.search(response.text):
        raise TooLong
    if _TOOL_CHOICE.search(response.text):
        raise _NoToolParser(response.status_code)
    raise Refused(response.status_code)


@contextmanager
def _expected() -> Iterator[None]:
    """Take an answer that is not in the expected form for that of another program."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError):
        raise Unasked("what answers is no vLLM, or one that is too new") from None


def _given(message: Mapping[str, Any]) -> Given:
    calls = tuple(
        (str(call["function"]["name"]), str(call["function"].get("arguments") or ""))
        for call in message.get("tool_calls") or ()
    )
    reasoning = message.get("reasoning")
    if reasoning is None:
        reasoning = message.get("reasoning_content")  # the name that vLLM had for it before
    return Given(message.get("content") or "", reasoning, calls)


def _ids(made: Any) -> list[int]:
    return [int(i) for i in made["token_ids"]]

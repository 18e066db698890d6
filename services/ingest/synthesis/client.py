"""One chat completion at a time of an OpenAI-compatible server, by the `openai` client; and what each failure means."""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import openai

from services.ingest.domain.synthesis.spec import Endpoint
from shared import strict_json
from shared.errors import InputError

CODE = "synthesis_endpoint"
UNSPENT = (409, 429, 503, 529)
"""The server did not begin. Any other 5xx may come from a proxy whose server did, so it counts as spent."""
_NO_CREDIT = re.compile(r"insufficient_quota|billing|credit", re.IGNORECASE)
_FILTERED = re.compile(r"content.?filter|content.?policy|safety", re.IGNORECASE)
_NO_TEMPERATURE = re.compile(r"temperature.*(support|allowed|deprecated)|unsupported.*temperature", re.IGNORECASE)
MOST_CHARS = 300
"""Of a message of the server."""


@dataclass(frozen=True)
class Reply:
    """A completion. Tokens are None where the server does not say."""

    text: str
    finish_reason: str | None
    input_tokens: int | None
    output_tokens: int | None


class Unavailable(Exception):
    """The endpoint is busy or away, so the request is sent again. `spent`: it may have been answered nonetheless.
    `wait`: the seconds that the endpoint asks for, if it does."""

    def __init__(self, what: str, *, spent: bool, wait: float | None = None) -> None:
        super().__init__(what)
        self.spent = spent
        self.wait = wait


class RequestRefused(Exception):
    """The endpoint takes requests, but not this one, which costs nothing. `filtered`: because of its content."""

    def __init__(self, message: str, *, filtered: bool) -> None:
        super().__init__(message)
        self.filtered = filtered


class NotBegun(Exception):
    """No request would do, and this one costs nothing: the key, the model or the address is wrong, or there is no
    credit."""

    def __init__(self, reason: InputError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class ChatClient:
    """A connection to one endpoint. `field`: the field of the spec that names it, for errors."""

    def __init__(self, endpoint: Endpoint, key: str | None, timeout: float, field: str = "endpoint") -> None:
        self._endpoint = endpoint
        self._field = field
        self._openai = openai.AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key=key or "none",  # the client wants one
            max_retries=0,  # every request is in the journal before it is sent, also when it is sent again
            timeout=openai.Timeout(timeout, connect=10.0),
        )
        self._renamed: dict[str, str | None] = {}
        """Parameters that this server calls otherwise; None: that it does not take."""

    async def __aenter__(self) -> ChatClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._openai.close()

    async def complete(self, body: Mapping[str, Any]) -> Reply:
        """Send one request.

        Raises:
            Unavailable: it may be sent again later.
            RequestRefused: the endpoint does not take this request.
            NotBegun: no request would do.
            InputError: what came is no answer of an OpenAI-compatible server.
        """
        while True:
            sent = {self._renamed.get(name, name): value for name, value in body.items()}
            sent.pop(None, None)
            try:
                return await self._complete(sent)
            except RequestRefused as refused:
                if not self._learn(str(refused), sent):
                    raise

    def _learn(self, message: str, sent: Mapping[str | None, Any]) -> bool:
        """Whether the server has just said that it wants a parameter otherwise, as reasoning models of OpenAI do."""
        if "max_completion_tokens" in message and "max_tokens" in sent:
            self._renamed["max_tokens"] = "max_completion_tokens"
        elif _NO_TEMPERATURE.search(message) and "temperature" in sent:
            self._renamed["temperature"] = None
        else:
            return False
        return True

    async def _complete(self, body: Mapping[str | None, Any]) -> Reply:
        try:
            response = await self._openai.chat.completions.with_raw_response.create(**body)  # type: ignore[arg-type]
        except openai.APIConnectionError as error:
            raise self._broken(error) from None
        except openai.APIStatusError as error:
            raise self._refused(error, str(body["model"])) from None
        return self._reply(response.text)

    def _broken(self, error: openai.APIConnectionError) -> Unavailable | NotBegun:
        cause = error.__cause__
        kind = type(cause or error).__name__  # of httpx or of its successor, by the version of the client
        if kind in ("UnsupportedProtocol", "InvalidURL", "LocalProtocolError"):
            message = f"{self._endpoint.base_url} cannot be asked; correct the address or the key"
            return NotBegun(self._wrong("base_url", message))
        sent = kind not in ("ConnectError", "ConnectTimeout", "PoolTimeout")
        return Unavailable(f"{self._endpoint.base_url} does not answer: {kind}", spent=sent)

    def _refused(self, error: openai.APIStatusError, model: str) -> Exception:
        status, said = error.status_code, _message(error.response)
        where, told = self._endpoint.base_url, f" ({said})" if said else ""
        if status == 402 or (status == 429 and _NO_CREDIT.search(_code(error.response))):
            message = f"{where} gives no credit{told}; add some, then run the same command again"
            return NotBegun(self._wrong("", message))
        if status in (401, 403):
            variable = f"the environment variable {self._endpoint.key}" if self._endpoint.key else ""
            key = f"the key of {variable}" if variable else "a request without a key; name its variable"
            message = f"{where} refuses {key}{told}"
            return NotBegun(self._wrong("key", message))
        if status == 404:
            message = (
                f"{where} does not know the model {model}{told}; correct `model`, or the address, which ends in /v1"
            )
            return NotBegun(self._wrong("", message))
        if status in (408, *UNSPENT) or status >= 500:
            spent = status not in UNSPENT
            return Unavailable(f"{where} answers {status}{told}", spent=spent, wait=_wait(error.response))
        filtered = bool(_FILTERED.search(f"{_code(error.response)} {said}"))
        return RequestRefused(f"{status}: {said}", filtered=filtered)

    def _reply(self, text: str) -> Reply:
        try:
            body = strict_json.loads(text)
            choice = body["choices"][0]
            content, used = choice["message"].get("content"), body.get("usage") or {}
            if not isinstance(content, str | None) or not isinstance(used, dict):
                raise TypeError
            reason = choice.get("finish_reason")
        except (ValueError, LookupError, TypeError, AttributeError):
            message = f"{self._endpoint.base_url} is not that of an OpenAI-compatible server; it usually ends in /v1"
            raise self._wrong("base_url", message) from None
        return Reply(
            text=content or "",
            finish_reason=reason if isinstance(reason, str) else None,
            input_tokens=_count(used.get("prompt_tokens")),
            output_tokens=_count(used.get("completion_tokens")),
        )

    def _wrong(self, field: str, message: str) -> InputError:
        param = f"{self._field}.{field}" if field else self._field
        return InputError(CODE, message if message.endswith(".") else message + ".", param)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _error(response: Any) -> Mapping[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    error = body.get("error", body) if isinstance(body, dict) else {}
    return error if isinstance(error, dict) else {"message": error}


def _message(response: Any) -> str:
    """What the server says, in one printable line."""
    said = str(_error(response).get("message") or "")[:MOST_CHARS]
    return "".join(character if character.isprintable() else " " for character in said).strip().rstrip(".")


def _code(response: Any) -> str:
    error = _error(response)
    return json.dumps([error.get("code"), error.get("type")])


def _wait(response: Any) -> float | None:
    """The seconds that the headers of an answer ask for: `retry-after-ms`, or `retry-after` as seconds or as a date."""
    headers = response.headers
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
        return seconds if 0 <= seconds < float("inf") else None
    try:
        date = email.utils.parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError, TypeError):
        return None
    return max(0.0, date.timestamp() - time.time())

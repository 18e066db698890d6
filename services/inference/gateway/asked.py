"""What a client asks of a model: the body of its request, read, checked, and written as vLLM gets it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
from dataclasses import dataclass

from starlette.types import Receive

from services.inference.domain.usage import ask_for_usage
from services.inference.gateway.admission import Slot
from shared import strict_json
from shared.http.client_gone import ClientGone
from shared.http.errors import ApiError
from shared.http.json_route import off_the_loop
from shared.strict_json import InvalidJson

BODY_LIMIT = 32 * 2**20
"""Bytes of a request. A prompt of a million tokens needs about a tenth of it."""
BODY_SECONDS = 120.0
"""Seconds that a body may take to arrive, because it has a place among the generations meanwhile."""
_WAIT = re.compile(r'(?:^|[,;\s])wait\s*=\s*"?(\d{1,6})', re.IGNORECASE)
_write = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


@dataclass
class Asked:
    """A request for a generation. Of its body only bytes are kept: as Python's objects it may be thirty times as
    large. Whoever needs them no more sets `rest` to nothing."""

    model: str
    streamed: bool
    hides_usage: bool
    """The client did not ask for the usage of its stream."""
    rest: bytes
    """The body without its model: strict JSON."""
    digest: bytes
    """Of `rest`."""

    def content(self, model: str) -> bytes:
        """The body, in which the model has the name that vLLM knows."""
        named = b'{"model":' + _write(model).encode()
        return named + b"," + self.rest[1:] if len(self.rest) > 2 else named + b"}"


async def read_request(receive: Receive, slot: Slot) -> Asked:
    """Read the body of a request, and check it.

    Raises:
        ApiError: it is no JSON object with a `model`, too large beside the others, or did not arrive in time.
        ClientGone: the client hung up.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            content = await _body(receive, slot)
    except TimeoutError:
        message = f"The body of the request did not arrive within {BODY_SECONDS:.0f} s."
        raise ApiError(408, message, code="request_timeout") from None
    return await off_the_loop(parse, content)


async def _body(receive: Receive, slot: Slot) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        slot.hold(len(part))
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def parse(content: bytes) -> Asked:
    """Check the body of a request.

    Raises:
        ApiError: it is no JSON object with a `model`.
    """
    try:
        body = strict_json.loads(content)  # what vLLM gets is made of it, and must be JSON
    except InvalidJson as error:
        message = f"The body is not valid JSON: {error}."
        raise ApiError(400, message, code="invalid_json", param=error.field or None) from None
    if not isinstance(body, dict):
        raise ApiError(400, "The body must be a JSON object.", code="invalid_value")
    model = body.pop("model", None)
    if not isinstance(model, str) or not model:
        raise ApiError(
            400, "`model` is missing: name one of GET /v1/models.", code="missing_required_parameter", param="model"
        )
    change = ask_for_usage(body)
    streamed = bool(body.get("stream"))
    rest = _write(body | change if change else body).encode()
    return Asked(model, streamed, change is not None, rest, hashlib.sha256(rest).digest())


def preferred_wait(prefer: str) -> float:
    """How many seconds a client wants to wait at most, by its `Prefer` header (RFC 7240); infinite if it does not
    say."""
    found = _WAIT.search(prefer)
    return float(found[1]) if found else math.inf

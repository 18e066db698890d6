"""Bearer tokens, the same as on the inference endpoint."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from fastapi import Request

from services.api.envelope import ApiError

_CHALLENGE = {"www-authenticate": "Bearer"}


def bearer(keys: tuple[str, ...]) -> Callable[[Request], None]:
    """A dependency that lets pass who knows one of `keys`; without keys, everyone."""
    known = [key.encode() for key in keys]

    def check(request: Request) -> None:
        if not known:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            message = "You didn't provide an API key. Send it as a header: Authorization: Bearer YOUR_KEY."
            raise ApiError(401, message, code="missing_api_key", headers=_CHALLENGE)
        # all of them, each in constant time: how long it takes tells nothing about any
        if not sum(hmac.compare_digest(token.strip().encode(), key) for key in known):
            message = "Incorrect API key provided. The valid ones are in TUNESTREAM_INFERENCE__API_KEYS."
            raise ApiError(401, message, code="invalid_api_key", headers=_CHALLENGE)

    return check

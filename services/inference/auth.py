"""Bearer tokens, compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from fastapi import Request

from services.inference.errors import ApiError


def bearer(api_keys: tuple[str, ...]) -> Callable[[Request], Awaitable[None]]:
    """A dependency that lets a request pass whose token is one of `api_keys`; all pass when there are none."""
    accepted = [key.encode() for key in api_keys]

    async def check(request: Request) -> None:
        if not accepted:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = token.strip().encode()
        # every key is compared, so that the time tells nothing about which one came close
        matches = [hmac.compare_digest(given, key) for key in accepted]
        if scheme.lower() != "bearer" or not any(matches):
            raise ApiError(
                401,
                "This endpoint needs an API key: send `Authorization: Bearer KEY` with one of its keys.",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )

    return check

"""Bearer tokens of the endpoint and of its administrative routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request

from services.inference.errors import ApiError
from shared.bearer import Verdict, judge


def bearer(api_keys: tuple[str, ...]) -> Callable[[Request], Awaitable[None]]:
    """A dependency that lets a request pass whose token is one of `api_keys`; all pass when there are none."""

    async def check(request: Request) -> None:
        if judge(api_keys, request.headers.get("authorization")) is not Verdict.ACCEPTED:
            raise ApiError(
                401,
                "This endpoint needs an API key: send `Authorization: Bearer KEY` with one of its keys.",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )

    return check

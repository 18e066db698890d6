"""Bearer tokens, the same as on the inference endpoint."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request

from services.api.envelope import ApiError
from shared.bearer import Verdict, judge

_CHALLENGE = {"www-authenticate": "Bearer"}


def bearer(keys: tuple[str, ...]) -> Callable[[Request], None]:
    """A dependency that lets pass who knows one of `keys`; without keys, everyone."""

    def check(request: Request) -> None:
        verdict = judge(keys, request.headers.get("authorization"))
        if verdict is Verdict.MISSING:
            message = "You didn't provide an API key. Send it as a header: Authorization: Bearer YOUR_KEY."
            raise ApiError(401, message, code="missing_api_key", headers=_CHALLENGE)
        if verdict is Verdict.UNKNOWN:
            message = "Incorrect API key provided. The valid ones are in TUNESTREAM_INFERENCE__API_KEYS."
            raise ApiError(401, message, code="invalid_api_key", headers=_CHALLENGE)

    return check

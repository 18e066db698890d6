"""API keys of the HTTP services, sent as bearer tokens."""

from __future__ import annotations

import hmac
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.access.principal import Principal
from shared.events.limits import DEFAULT_PROJECT
from shared.http.errors import ApiError
from shared.http.health import PATHS

CHALLENGE = {"www-authenticate": "Bearer"}


class BearerAuth:
    """ASGI middleware that lets a request pass if it has one of the keys. Any other request is answered with 401 before
    its body is read."""

    def __init__(self, app: ASGIApp, keys: tuple[str, ...], public: Collection[str] = ()) -> None:
        """Without `keys` every request passes. `public`: paths that need no key, beside /health."""
        self._app = app
        self._keys = keys
        self._public = {*PATHS, *public}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._public:
            refused = refusal(self._keys, Headers(scope=scope).get("authorization"))
            if refused is not None:
                await refused.response()(scope, receive, send)
                return
            project = Headers(scope=scope).get("openai-project") or DEFAULT_PROJECT
            scope.setdefault("state", {})["principal"] = Principal("root", project)
        await self._app(scope, receive, send)


def refusal(keys: tuple[str, ...], authorization: str | None) -> ApiError | None:
    """The 401 for an `Authorization` header that holds none of `keys`. None if it holds one, or if `keys` is empty."""
    if not keys:
        return None
    scheme, _, token = (authorization or "").partition(" ")
    given = token.strip().encode()
    if scheme.lower() != "bearer" or not given:
        message = "You didn't provide an API key. Send it as a header: Authorization: Bearer YOUR_KEY."
        return ApiError(401, message, code="missing_api_key", headers=CHALLENGE)
    # all keys are compared, each in constant time, so that the time taken tells nothing about any of them
    matches = [hmac.compare_digest(given, key.encode()) for key in keys]
    if not any(matches):
        message = "Incorrect API key provided. The valid ones are in TUNESTREAM_INFERENCE__API_KEYS."
        return ApiError(401, message, code="invalid_api_key", headers=CHALLENGE)
    return None

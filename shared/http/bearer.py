"""API keys of the HTTP services, sent as bearer tokens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection

from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.access.keyring import ROOT, Holder, Keyring
from shared.access.principal import Principal
from shared.access.rate_limits import REQUESTS, TOKENS, Exceeded, duration
from shared.access.rights import RightsTable, is_below
from shared.http.errors import ApiError
from shared.http.health import PATHS
from shared.ids import is_project, slug

CHALLENGE = {"www-authenticate": "Bearer"}
VERSION = b"2020-10-01"
"""Of OpenAI's API, which has had no other."""

OWN = {b"openai-organization", b"openai-version", b"openai-processing-ms"}
"""The headers that are set here."""
LIMITS = {*REQUESTS, *TOKENS}
"""Those that the service sets which counts the request."""


class BearerAuth:
    """ASGI middleware that lets a request pass if its key is known, has the right that the route needs, and is within
    its limits. Any other request is answered with 401, 403 or 429 before its body is read.

    It puts into the state of a request: `principal`, and `holder` with the limits of the key. Every answer to a
    request that passed has OpenAI's headers, those of limits too if the key has any.
    """

    def __init__(
        self,
        app: ASGIApp,
        keyring: Keyring,
        *,
        rights: RightsTable,
        public: Collection[str] = (),
        generations: Collection[str] = (),
        handed_on: Collection[str] = (),
        organization: str = "",
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """`public`: paths that need no key, beside /health. `generations`: paths to which the limit of tokens applies.
        `handed_on`: what is at or below these paths goes to another service, which counts it, so that it counts once.
        `organization`: of `openai-organization`. `timer`: that of `keyring`, seconds that only ever grow."""
        self._app = app
        self._keyring = keyring
        self._rights = rights
        self._public = {*PATHS, *public}
        self._generations = frozenset(generations)
        self._handed_on = tuple(handed_on)
        self._headers = [(b"openai-organization", slug(organization).encode()), (b"openai-version", VERSION)]
        self._timer = timer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._public:
            await self._app(scope, receive, send)
            return
        began = self._timer()
        authorization, project = _asked(scope)
        try:
            holder = await self._holder(authorization)
            principal = _in_project(holder.principal, project)
            self._check_rights(principal, scope)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        scope.setdefault("state", {}).update(principal=principal, holder=holder)
        limiter = None if self._is_handed_on(scope["path"]) else holder.limiter
        replaced = OWN if limiter is None else OWN | LIMITS

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                now = self._timer()
                ours = [*self._headers, (b"openai-processing-ms", b"%d" % ((now - began) * 1000))]
                if limiter is not None:
                    ours += limiter.headers(now)
                # replaced, not appended: an answer that is passed on from another service already has them
                message["headers"] = [each for each in message.get("headers", ()) if each[0] not in replaced] + ours
            await send(message)

        if limiter is not None:
            exceeded = limiter.take(self._timer(), generation=scope["path"] in self._generations)
            if exceeded is not None:
                await _too_many(exceeded).response()(scope, receive, send_with_headers)
                return
        await self._app(scope, receive, send_with_headers)

    def _is_handed_on(self, path: str) -> bool:
        return any(is_below(path, top) for top in self._handed_on)

    async def _holder(self, authorization: str) -> Holder:
        """Whoever holds the key of an `Authorization` header.

        Raises:
            ApiError: 401, it holds none that is known.
            StoreUnavailable: it cannot be known now.
        """
        if await self._keyring.is_open():
            return ROOT
        scheme, _, token = authorization.partition(" ")
        given = token.strip().encode()
        if scheme.lower() != "bearer" or not given:
            message = "You didn't provide an API key. Send it as a header: Authorization: Bearer YOUR_KEY."
            raise ApiError(401, message, code="missing_api_key", headers=CHALLENGE)
        holder = await self._keyring.find(given)
        if holder is None:
            message = (
                "Incorrect API key provided. The valid ones were made with `tunestream keys create`, or are in "
                "TUNESTREAM_INFERENCE__API_KEYS."
            )
            raise ApiError(401, message, code="invalid_api_key", headers=CHALLENGE)
        if holder.revoked:
            message = "This API key was revoked. Make another one: `tunestream keys create`."
            raise ApiError(401, message, code="invalid_api_key", headers=CHALLENGE)
        return holder

    def _check_rights(self, principal: Principal, scope: Scope) -> None:
        """Raises ApiError: 403, the route needs a right that the principal has not."""
        if "admin" in principal.rights:
            return
        needed = self._rights.needed(scope["method"], scope["path"])
        if any(right in principal.rights for right in needed) or not _is_route(scope):
            return
        wanted = " or ".join(f"`{right}`" for right in needed or ("admin",))
        has = ", ".join(f"`{right}`" for right in sorted(principal.rights)) or "none"
        message = f"This API key lacks the right that this request needs: {wanted}. It has {has}."
        raise ApiError(403, message, code="insufficient_permissions")


def _asked(scope: Scope) -> tuple[str, str]:
    """The first `Authorization` and the first `OpenAI-Project` header; empty where there is none."""
    authorization = project = ""
    for name, value in scope["headers"]:
        if name == b"authorization":
            authorization = authorization or value.decode("latin-1")
        elif name == b"openai-project":
            project = project or value.decode("latin-1")
    return authorization, project


def _in_project(principal: Principal, project: str) -> Principal:
    """The principal in the project that the request names.

    Raises:
        ApiError: 400, it names none that can exist; 401, the key belongs to another one.
    """
    if not project or project == principal.project:
        return principal
    if not is_project(project):
        message = (
            "The header OpenAI-Project is not the id of a project: that has 1 to 64 letters, digits, dashes and "
            "underscores, and begins with a letter or digit."
        )
        raise ApiError(400, message, code="invalid_project", param="OpenAI-Project")
    if "admin" not in principal.rights:
        message = (
            f"The header OpenAI-Project names another project than that of this API key, {principal.project}. Leave "
            "the header out, or use a key of that project."
        )
        raise ApiError(401, message, code="mismatched_project", headers=CHALLENGE)
    return Principal(principal.key_id, project, principal.rights)


def _is_route(scope: Scope) -> bool:
    """Whether a route would answer. Where none does, the right answer is that there is none."""
    app = scope.get("app")
    return app is None or any(route.matches(scope)[0] is Match.FULL for route in app.routes)


def _too_many(exceeded: Exceeded) -> ApiError:
    short = {"requests": "RPM", "tokens": "TPM"}[exceeded.of]
    message = (
        f"Rate limit reached for this API key on {exceeded.of} per minute ({short}): Limit {exceeded.limit}. Please "
        f"try again in {duration(exceeded.seconds)}."
    )
    milliseconds = math.ceil(exceeded.seconds * 1000)
    headers = {"retry-after": str(math.ceil(exceeded.seconds)), "retry-after-ms": str(milliseconds)}
    return ApiError(429, message, code="rate_limit_exceeded", headers=headers)

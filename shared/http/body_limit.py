"""Limits the size of request bodies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.http.errors import ApiError

DEFAULT_LIMIT = 2**20
"""In bytes. A request without data of the user has a few hundred."""

Limits: TypeAlias = Mapping[str, int | None]
"""The most bytes that a body may have, by path; None: any number. A limit holds for all paths below its own, too. `*`
stands for any part of a path."""


class BodyLimit:
    """ASGI middleware that answers 413 `body_too_large` to a request whose body is over its limit.

    A body that declares too large a size is not read at all. One that declares none is read up to its limit, by
    whoever handles the request.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        """`limits`: of the paths whose limit is not `DEFAULT_LIMIT`."""
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        own = (limit for below, limit in self._limits.items() if _is_below(path, below))
        limit = next(own, DEFAULT_LIMIT)
        if limit is None or scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        # `int` takes at most 4,300 digits, and not all that `isdigit` takes
        if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
            await ApiError(413, _message(limit), code="body_too_large").response()(scope, receive, send)
            return
        read = 0

        async def receive_within_limit() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                # FastAPI answers 400 to any other exception that is raised while it reads a body
                raise HTTPException(413, _message(limit))
            return message

        await self._app(scope, receive_within_limit, send)


def _is_below(path: str, place: str) -> bool:
    asked, wanted = path.split("/"), place.split("/")
    return len(asked) >= len(wanted) and all(part in ("*", met) for part, met in zip(wanted, asked, strict=False))


def _message(limit: int) -> str:
    return f"The body is larger than {limit >> 20} MiB."

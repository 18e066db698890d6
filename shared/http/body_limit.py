"""Limits the size of request bodies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.http.errors import ApiError

DEFAULT_LIMIT = 2**20
"""In bytes. A request without data of the user has a few hundred."""

Limit: TypeAlias = Callable[[str], int | None]
"""Maps the path of a request to the most bytes that its body may have; None: any number."""


class BodyLimit:
    """ASGI middleware that answers 413 `body_too_large` to a request whose body is over its limit.

    A body that declares too large a size is not read at all. One that declares none is read up to its limit, by
    whoever handles the request.
    """

    def __init__(self, app: ASGIApp, limit: Limit) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._limit(scope["path"]) if scope["type"] == "http" else None
        if limit is None:
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
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


def default_limit(path: str) -> int:
    """The limit of a service whose routes take no data of the user."""
    return DEFAULT_LIMIT


def _message(limit: int) -> str:
    return f"The body is larger than {limit >> 20} MiB."

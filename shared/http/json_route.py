"""Routes whose JSON bodies are read strictly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from shared import strict_json
from shared.strict_json import InvalidJson

LARGE = 2**18
"""Bytes of a body that takes longer to read than an event loop may stand still."""
_readers = ThreadPoolExecutor(1, "large-json")
"""One at a time, because as Python's objects a body may be thirty times as large."""

T = TypeVar("T")


async def off_the_loop(read: Callable[[bytes], T], body: bytes) -> T:
    """`read(body)`, in a thread if `body` is large."""
    if len(body) <= LARGE:
        return read(body)
    return await asyncio.get_running_loop().run_in_executor(_readers, read, body)


class BadJson(HTTPException):
    """The body is not JSON, or not such as every reader understands. FastAPI passes on an HTTPException that is raised
    while it reads a body, and answers 400 without a reason to any other."""

    def __init__(self, error: InvalidJson) -> None:
        super().__init__(400, f"The body is not valid JSON: {error}.")
        self.param = error.field or None


class _Strict(Request):
    async def json(self) -> Any:
        try:
            return await off_the_loop(strict_json.loads, await self.body())
        except InvalidJson as error:
            raise BadJson(error) from None


class JsonRoute(APIRoute):
    """The route class of a router (`APIRouter(route_class=JsonRoute)`) that takes models as bodies. FastAPI's own takes
    NaN and half surrogate pairs, which cannot be stored or passed on."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(_Strict(request.scope, request.receive))

        return strict

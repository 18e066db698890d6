"""Passes an answer on, chunk by chunk as it comes, and closes the connection to the server when the client hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
import httpx
from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from shared.tasks import cancel_and_wait

T = TypeVar("T")


@dataclass
class Upstream:
    """An answer of vLLM or of the api service, whose first chunk has come. If the connection breaks from now on, the
    client sees it."""

    response: httpx.Response
    first: bytes
    _rest: AsyncIterator[bytes]

    async def chunks(self) -> AsyncIterator[bytes]:
        if self.first:
            yield self.first
        async for chunk in self._rest:
            yield chunk

    async def body(self) -> bytes:
        return self.first + b"".join([chunk async for chunk in self._rest])


@asynccontextmanager
async def open_upstream(client: httpx.AsyncClient, request: httpx.Request) -> AsyncIterator[Upstream]:
    """Send `request` and wait for the first chunk of its answer. The connection is open until the block is left.

    Raises:
        httpx.TransportError: the connection failed before the first chunk.
    """
    response = await client.send(request, stream=True)
    try:
        rest = response.aiter_raw()
        yield Upstream(response, await anext(rest, b""), rest)
    finally:
        with anyio.CancelScope(shield=True):
            await response.aclose()


class ClientGone(Exception):
    """The client has hung up, so there is nobody to answer."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client hangs up. The request's body must have been read.

    Raises:
        ClientGone: the client hung up.
    """

    async def hang_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, gone = asyncio.create_task(work), asyncio.create_task(hang_up())
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        await cancel_and_wait(working, gone)


class ScopedResponse(Response):
    """A response that is made and sent with a stack of open resources. The stack is closed however the sending ends,
    even if the client hangs up before it begins, or the task is cancelled."""

    def __init__(self, make: Callable[[AsyncExitStack], Awaitable[Response]]) -> None:
        """`make` returns the response to send, and puts on the stack what must stay open until it is sent."""
        super().__init__()
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stack = AsyncExitStack()
        try:
            response = await self._make(stack)
            await response(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await stack.aclose()

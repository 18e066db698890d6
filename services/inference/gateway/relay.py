"""Passes an answer on, chunk by chunk as it comes, and closes the connection to the server when the client hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType

import anyio
import httpx
from starlette.responses import Response
from starlette.types import Receive, Scope, Send


@dataclass
class Upstream:
    """An answer of the api service, whose first chunk has come. If the connection breaks from now on, the client sees
    it."""

    response: httpx.Response
    first: bytes
    _rest: AsyncIterator[bytes]

    async def chunks(self) -> AsyncIterator[bytes]:
        if self.first:
            yield self.first
        async for chunk in self._rest:
            yield chunk


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


class UntilGone:
    """A block that ends with `ClientGone` when the client hangs up. The request's body must have been read.

    It cancels the task that runs the block, as `asyncio.timeout` does: a task for the work and one for the watch would
    cost as much as the request itself.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._watch = asyncio.create_task(self._wait())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.cancel()
        if self._gone and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise ClientGone from None

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._task.cancel()


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

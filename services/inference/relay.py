"""Passing an answer on, chunk by chunk as it comes, and hanging up on the server when the client hangs up on us."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
import httpx
from fastapi import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from shared.tasks import cancel_and_wait

T = TypeVar("T")

# A generation may think for minutes before its first byte; the official client itself gives up after 600 s.
TIMEOUT = httpx.Timeout(connect=5.0, read=900.0, write=60.0, pool=10.0)
# vLLM and the api service close a connection that was idle for 5 s: be sooner, or a request meets a closed one.
LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=64, keepalive_expiry=4.0)


def make_client() -> httpx.AsyncClient:
    """The one pool of connections, to vLLM and to the api service."""
    return httpx.AsyncClient(timeout=TIMEOUT, limits=LIMITS, trust_env=False, follow_redirects=False)


@dataclass
class Upstream:
    """An answer of which the first chunk is here: from now on a broken connection cannot be hidden from the client."""

    response: httpx.Response
    first: bytes
    _rest: AsyncIterator[bytes]

    async def chunks(self) -> AsyncIterator[bytes]:
        if self.first:
            yield self.first
        async for chunk in self._rest:
            yield chunk

    async def body(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])


async def open_upstream(client: httpx.AsyncClient, request: httpx.Request) -> Upstream:
    """Send `request` and wait for the first chunk of its answer; the caller closes the response.

    Raises:
        httpx.TransportError: the connection failed before that.
    """
    response = await client.send(request, stream=True)
    try:
        rest = response.aiter_raw()
        return Upstream(response, await anext(rest, b""), rest)
    except BaseException:
        await response.aclose()
        raise


class ClientGone(Exception):
    """The client has hung up: there is nobody to answer."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client hangs up. The request's body must have been read.

    Raises:
        ClientGone: it did.
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


class Relayed(StreamingResponse):
    """A streamed answer. What is in `resources` is closed however it ends, also if it never begins."""

    def __init__(self, chunks: AsyncIterator[bytes], status: int, headers: dict[str, str]) -> None:
        super().__init__(chunks, status_code=status, headers=headers)
        self.resources = AsyncExitStack()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self.resources.aclose()

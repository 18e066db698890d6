"""A TCP proxy before a real server, which can become a black hole: what a network does that fails without a word."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from shared.tasks import cancel_and_wait, in_background

Mode = Literal["open", "silent", "drip", "refused"]


class Proxy:
    """Forwards connections to `port`.

    `mode` may change at any time, also for open connections:
    - `open`: everything is forwarded.
    - `silent`: connections are accepted and requests are read, but nothing is answered.
    - `drip`: of each answer, one byte is forwarded every tenth of a second.
    - `refused`: new connections are reset.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.mode: Mode = "open"
        self.bytes_per_second = float("inf")
        """In each direction of each connection."""
        self.connections = 0
        """How many are open now."""
        self._target = (host, port)
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset every open connection. After `silent` it keeps a client from reading on behind an answer that it never
        got: no network loses a part of a stream."""
        for client in self._clients:
            client.transport.abort()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield self
        finally:
            self._server.close()
            await cancel_and_wait(*self._tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode == "refused":
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._clients.add(writer)
        try:
            from_server, to_server = await asyncio.open_connection(*self._target)
            async with in_background(self._answers(from_server, writer)):
                try:
                    while data := await reader.read(2**16):
                        to_server.write(data)
                        await to_server.drain()
                        await asyncio.sleep(len(data) / self.bytes_per_second)
                finally:
                    await _closed(to_server)
        except OSError:
            pass
        finally:
            self.connections -= 1
            self._clients.discard(writer)
            await _closed(writer)

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(2**16):
                if self.mode == "open":
                    writer.write(data)
                    await writer.drain()
                    await asyncio.sleep(len(data) / self.bytes_per_second)
                elif self.mode == "drip":
                    for byte in data:
                        writer.write(bytes([byte]))
                        await asyncio.sleep(0.1)
        if self.mode == "open":
            writer.close()


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()

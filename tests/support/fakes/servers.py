"""Real HTTP servers on free ports of loopback, in the event loop of the test or in a thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import HTTPServer

import uvicorn
from starlette.types import ASGIApp


def unused_port() -> int:
    """A port on which nobody listens now. Another process may take it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def refusing_port() -> Iterator[int]:
    """A port that is bound but never listens: no other process gets it, and every connection is refused."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextmanager
def serving(server: HTTPServer) -> Iterator[None]:
    """Run a server of the standard library in a thread."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Server:
    """An ASGI app on uvicorn, in the event loop of the test."""

    def __init__(self, app: ASGIApp) -> None:
        config = uvicorn.Config(app, host="127.0.0.1", port=0, lifespan="off", log_config=None, access_log=False)
        config.load()
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def break_connections(self) -> None:
        """Reset every connection, as the death of the process does."""
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()

    def stop_listening(self) -> None:
        for server in self._server.servers:
            server.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        # not `serve`, whose main loop checks only every 100 ms whether it should end
        await self._server.startup()
        try:
            yield self
        finally:
            self.stop_listening()
            self.break_connections()

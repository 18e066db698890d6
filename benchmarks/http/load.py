"""The ends of an HTTP benchmark: a stub of vLLM that costs next to nothing, and a client that measures."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from typing import Any, cast

import httptools

MODEL = "benchmark/base"
CHAT = "/v1/chat/completions"
KEY = "sk-" + "5eed" * 16
"""Of both proxies; LiteLLM takes no shorter one."""
ANSWER_EVENTS = 8
"""Events of a streamed answer."""
HOLD_SECONDS = 1.0
"""The pause between two events of an answer that is held open."""


def request(port: int, *, stream: bool = False, hold: bool = False) -> bytes:
    """A request for a generation, as a client sends it. `hold`: its stream never ends."""
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Where is my order? " * 20}],
        "temperature": 0,
        "max_tokens": 64,
    }
    body |= {"stream": True} if stream or hold else {}
    body |= {"user": "hold"} if hold else {}
    content = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {KEY}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode() + content


# --- the stub -----------------------------------------------------------------------------------------------------


def _whole(content: bytes, kind: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content


def _event(said: str | None, **more: Any) -> bytes:
    choices = [] if said is None else [{"index": 0, "delta": {"content": said}, "finish_reason": None}]
    data = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices}
    content = b"data: " + json.dumps(data | more).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(content), content)


_USAGE = {"prompt_tokens": 100, "completion_tokens": 8, "total_tokens": 108}
_MESSAGE = {"role": "assistant", "content": "It is on its way. " * 10}
_CHOICES = [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}]
_COMPLETION = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": _CHOICES}
_ANSWER = _whole(json.dumps(_COMPLETION | {"usage": _USAGE}).encode(), "application/json")
_MODELS = _whole(json.dumps({"object": "list", "data": [{"id": MODEL, "parent": None}]}).encode(), "application/json")
_HEALTHY = _whole(b"", "text/plain")
_STREAMED = re.compile(rb'"stream": ?true')
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_EVENTS = b"".join([_event("word ") for _ in range(ANSWER_EVENTS)])
_STREAM = _STREAM_HEAD + _EVENTS + _event(None, usage=_USAGE) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class _Stub(asyncio.Protocol):
    """Answers at once. A stream that is held open gets an event a second."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._parser = httptools.HttpRequestParser(self)
        self._timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def on_message_begin(self) -> None:
        self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._url == b"/health":
            self._transport.write(_HEALTHY)
        elif self._url == b"/v1/models":
            self._transport.write(_MODELS)
        elif b'"hold"' in self._body:
            self._transport.write(_STREAM_HEAD)
            self._hold()
        else:
            self._transport.write(_STREAM if _STREAMED.search(self._body) else _ANSWER)

    def _hold(self) -> None:
        self._transport.write(_event("word "))
        self._timer = asyncio.get_running_loop().call_later(HOLD_SECONDS, self._hold)


async def run_stub(port: int) -> None:
    """Serve the stub until cancelled."""
    server = await asyncio.get_running_loop().create_server(_Stub, "127.0.0.1", port, backlog=4096)
    async with server:
        await server.serve_forever()


# --- the client ---------------------------------------------------------------------------------------------------


class Connection(asyncio.Protocol):
    """A connection that sends one request at a time."""

    def __init__(self) -> None:
        self._done: asyncio.Future[int] | None = None
        self._first: asyncio.Future[None] | None = None

    @classmethod
    async def open(cls, port: int) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._parser = httptools.HttpResponseParser(self)

    async def send(self, content: bytes) -> int:
        """Send a request. Returns the status of its answer, which has come completely."""
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(content)
        return await self._done

    async def begin(self, content: bytes) -> None:
        """Send a request. Returns when the first bytes of its answer have come."""
        self._first = asyncio.get_running_loop().create_future()
        self._transport.write(content)
        await self._first

    def close(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        if self._first is not None and not self._first.done():
            self._first.set_result(None)

    def on_message_complete(self) -> None:
        done, self._done = self._done, None
        status = self._parser.get_status_code()
        self._parser = httptools.HttpResponseParser(self)
        if done is not None and not done.done():
            done.set_result(status)

    def connection_lost(self, error: Exception | None) -> None:
        for future in (self._done, self._first):
            if future is not None and not future.done():
                future.set_exception(error or ConnectionError("the connection was closed"))


async def closed_loop(port: int, content: bytes, connections: int, seconds: float) -> tuple[list[float], float]:
    """Send on each connection as soon as the answer has come. Returns the latencies and the whole time, in seconds."""
    latencies: list[float] = []
    opened = [await Connection.open(port) for _ in range(connections)]
    began = time.perf_counter()

    async def one(connection: Connection) -> None:
        while (sent := time.perf_counter()) - began < seconds:
            _expect(await connection.send(content))
            latencies.append(time.perf_counter() - sent)

    await asyncio.gather(*map(one, opened))
    elapsed = time.perf_counter() - began
    for connection in opened:
        connection.close()
    return latencies, elapsed


async def fixed_rate(port: int, content: bytes, rate: float, seconds: float) -> list[float]:
    """Send `rate` requests a second, whatever becomes of them. Returns their latencies in seconds, from the time at
    which each should have been sent: one that waits behind slow ones counts as slow."""
    latencies: list[float] = []
    idle: list[Connection] = []
    opened: list[Connection] = []
    began = time.perf_counter() + 0.1

    async def one(at: float) -> None:
        if idle:
            connection = idle.pop()
        else:
            connection = await Connection.open(port)
            opened.append(connection)
        _expect(await connection.send(content))
        latencies.append(time.perf_counter() - at)
        idle.append(connection)

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                at = began + number / rate
                if (pause := at - time.perf_counter()) > 0:
                    await asyncio.sleep(pause)
                group.create_task(one(at))
    finally:
        for connection in opened:
            connection.close()
    return latencies


async def until_ready(port: int, ready: Callable[[], object], content: bytes, seconds: float) -> None:
    """Return when the server answers `content` with 200. `ready` is asked before each try, and may raise."""
    deadline = time.monotonic() + seconds
    while True:
        ready()
        try:
            connection = await Connection.open(port)
            status = await connection.send(content)
            connection.close()
            if status == 200:
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing answers on port {port}")
        await asyncio.sleep(0.2)


def _expect(status: int) -> None:
    if status != 200:
        raise RuntimeError(f"a request was answered with {status}")

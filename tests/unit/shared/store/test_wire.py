"""Requests to the store: what is repeated, and that nothing a server answers makes a call endless."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from shared.errors import ConfigError, StoreRefused, StoreUnavailable, TunestreamError
from shared.settings import StoreSettings
from shared.store import connection
from shared.store.objects import ObjectStore
from shared.store.wire import Limits
from tests.support.fakes.servers import serving

ERROR = "<Error><Code>{}</Code><Message>about a.jsonl</Message></Error>"


class Server(ThreadingHTTPServer):
    """Answers the statuses of `script` one after the other, and then always the last."""

    script: list[int]
    body = ERROR.format("Whatever")
    headers: dict[str, str]
    asked: list[str]
    seconds = 0.0
    """How long each answer takes."""
    awake: threading.Event
    """Once it is set, answers are immediate."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append(self.command)
        self.server.awake.wait(self.server.seconds)
        script = self.server.script
        status = script.pop(0) if len(script) > 1 else script[0]
        body = b"" if self.command == "HEAD" or status == 200 else self.server.body.encode()
        self.send_response(status)
        for name, value in {"content-type": "application/xml", **self.server.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(*script: int, body: str = Server.body, **headers: str) -> Iterator[tuple[Server, ObjectStore]]:
    server = Server(("127.0.0.1", 0), Handler)
    server.script, server.body, server.headers, server.asked = list(script), body, headers, []
    server.awake = threading.Event()
    with serving(server):
        yield server, ObjectStore.connect(StoreSettings(endpoint=f"http://127.0.0.1:{server.server_address[1]}"))


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_store_that_stumbles_is_asked_again(status: int) -> None:
    with served(status, status, 200) as (server, store):
        await store.put("a", b"1")
    assert server.asked == ["PUT"] * 3


async def test_a_store_that_is_down_is_asked_four_times() -> None:
    with served(503) as (server, store):
        with pytest.raises(StoreUnavailable, match="the object store answered Whatever"):
            await store.put("a", b"1")
        assert len(server.asked) == 4
        with pytest.raises(StoreUnavailable):
            await store.stat("a")


async def test_a_request_that_may_not_have_its_effect_twice_is_sent_once() -> None:
    with served(503) as (server, store), pytest.raises(StoreUnavailable):
        await store._connection.document(
            "upload", lambda: store._client._complete_multipart_upload("tunestream", "a", "id", [])
        )
    assert server.asked == ["POST"]


async def test_a_store_cannot_make_a_call_wait() -> None:
    """MinIO asks for two minutes while it starts."""
    with served(503, **{"retry-after": "3600"}) as (_, store):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await store.get("a")
        assert time.monotonic() - began < 10


async def test_no_try_begins_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "DOCUMENT", Limits(silence=1.0, seconds=0.01))
    with served(503) as (server, store), pytest.raises(StoreUnavailable):
        await store.get("a")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, "<html>", ConfigError),  # it says that it is XML, but it is not
        (400, ERROR.format("KeyTooLongError"), StoreRefused),
        (403, ERROR.format("InvalidObjectState"), StoreRefused),
        (403, ERROR.format("ExpiredToken"), ConfigError),
        (429, "<html>", StoreUnavailable),
        (301, ERROR.format("PermanentRedirect"), ConfigError),
    ],
)
async def test_other_answers_are_not_waited_for(status: int, body: str, kind: type[TunestreamError]) -> None:
    with served(status, body=body) as (server, store):
        for call in (store.get("a"), store.list("a"), store.put("a", b"1")):
            with pytest.raises(kind) as caught:
                await call
            assert "a.jsonl" not in str(caught.value)
    assert server.asked == ["GET", "GET", "PUT"]


async def test_a_date_of_a_proxy_that_has_no_store_is_not_believed() -> None:
    """An answer of 5xx may come from a machine whose clock nobody else uses."""
    with served(503) as (_, store):
        before = store._connection.clock.offset()
        with pytest.raises(StoreUnavailable):
            await store.get("a")
        assert store._connection.clock.offset() == pytest.approx(before, abs=0.01)


# --- many calls at once -------------------------------------------------------------------------------------------


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "DOCUMENT_THREADS", 1)
    monkeypatch.setattr(connection, "DOCUMENT", Limits(silence=0.5, seconds=0.5))


@pytest.mark.usefixtures("one_thread")
async def test_calls_may_wait_for_each_other_while_the_store_answers() -> None:
    """Some callers read a document of every job at once: that takes its time, and is no outage."""
    with served(200) as (server, store):
        server.seconds = 0.05
        began = time.monotonic()
        await asyncio.gather(*(store.get(f"jobs/{number}") for number in range(30)))
        assert time.monotonic() - began > 1.0


@pytest.mark.usefixtures("one_thread")
async def test_calls_that_wait_behind_a_silent_store_end_with_those_before_them() -> None:
    with served(200) as (server, store):
        server.seconds = 60.0
        began = time.monotonic()
        ended = await asyncio.gather(*(store.get(f"jobs/{number}") for number in range(30)), return_exceptions=True)
        assert time.monotonic() - began < 10, "each by itself would take 15 seconds"
        assert {type(error) for error in ended} == {StoreUnavailable}
        server.awake.set()
        assert len(server.asked) <= 2, "the others were never sent"
        await store.get("jobs/1")

"""The object store client against the real S3 server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from shared.errors import ConfigError, StoreRefused, StoreUnavailable
from shared.events import DatasetPointer
from shared.store import connection, streams
from shared.store.clock import StoreClock
from shared.store.objects import ObjectStore
from shared.store.parts import PART_SIZE
from shared.store.wire import Limits
from tests.contract.store_suite import StoreSuite
from tests.support.embedded import Embedded
from tests.support.fakes.proxy import Proxy
from tests.support.waiting import until


class TestObjectStore(StoreSuite):
    @pytest.fixture
    def store(self, parts: Embedded) -> ObjectStore:
        return parts.objects


async def test_only_uploads_that_are_old_and_not_completed_are_aborted(parts: Embedded) -> None:
    objects, key = parts.objects, "suite-uploads/big"
    client = objects._client
    upload = client._create_multipart_upload(objects.bucket, key, {})
    client._upload_part(objects.bucket, key, b"x" * (5 * 2**20), None, upload, 1)
    assert await objects.abort_uploads(time.time() - 3600) == 0
    assert await objects.abort_uploads(time.time() + 3600) >= 1
    assert client._list_multipart_uploads(objects.bucket).uploads == []
    assert await objects.list("suite-uploads/") == []


@pytest.mark.parametrize("how", ["fails", "cancelled"])
async def test_of_a_stream_that_breaks_off_no_part_stays(parts: Embedded, how: str) -> None:
    objects, key = parts.objects, f"suite-streams/{how}"
    three, never = asyncio.Event(), asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * streams.PART_SIZE
        three.set()
        if how == "fails":
            raise ValueError("the client is gone")
        await never.wait()

    def begun() -> list[str]:
        uploads = objects._client._list_multipart_uploads(objects.bucket, prefix=key).uploads
        return [upload.object_name or "" for upload in uploads]

    writing = asyncio.create_task(objects.write_stream(key, chunks()))
    await three.wait()
    if how == "cancelled":
        assert begun() == [key]
        writing.cancel()
    with pytest.raises((ValueError, asyncio.CancelledError)):
        await writing
    await until(lambda: not begun(), "the upload is aborted")
    assert await objects.list("suite-streams/") == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"access_key": "nobody"}, "knows no access key 'nobody' (TUNESTREAM_STORE__ACCESS_KEY)"),
        ({"secret_key": SecretStr("canary")}, "refuses TUNESTREAM_STORE__SECRET_KEY"),
        ({"system_bucket": "nowhere"}, "has no bucket 'nowhere' (TUNESTREAM_STORE__SYSTEM_BUCKET)"),
    ],
)
async def test_a_wrong_setting_is_named_at_the_start_and_later(
    parts: Embedded, wrong: dict[str, Any], words: str
) -> None:
    objects = ObjectStore.connect(parts.settings.store.model_copy(update=wrong))
    with pytest.raises(ConfigError) as caught:
        await objects.check()
    assert words in str(caught.value)
    assert "canary" not in str(caught.value)
    with pytest.raises(ConfigError, match="TUNESTREAM_STORE__"):
        await objects.list("files/")


# --- a store that gives no answer ---------------------------------------------------------------------------------


@pytest.fixture
async def proxy(parts: Embedded) -> AsyncIterator[Proxy]:
    async with Proxy(parts.stack.ports["s3"]).running() as running:
        yield running


def through(proxy: Proxy, parts: Embedded) -> ObjectStore:
    return ObjectStore.connect(parts.settings.store.model_copy(update={"endpoint": proxy.url}))


async def seconds(call: Awaitable[object]) -> float:
    """How long a call takes to fail because the store is away."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await call
    return time.monotonic() - began


def documents(store: ObjectStore) -> dict[str, Callable[[], Awaitable[object]]]:
    """A call of every method for small documents."""
    return {
        "get": lambda: store.get("black/a"),
        "create": lambda: store.create("black/b", b"x"),
        "replace": lambda: store.replace("black/a", b"x", "0" * 32),
        "put": lambda: store.put("black/c", b"x"),
        "delete": lambda: store.delete("black/a"),
        "list": lambda: store.list("black/"),
        "folders": lambda: store.folders("black/"),
        "stat": lambda: store.stat("black/a"),
        "metadata": lambda: store.metadata("black/a"),
        "check": store.check,
    }


async def test_behind_a_black_hole_every_call_for_a_document_ends_within_its_deadline(
    parts: Embedded, proxy: Proxy
) -> None:
    store = through(proxy, parts)
    await asyncio.gather(*(store.get("black/a") for _ in range(6)))  # some calls find an open connection, some none
    proxy.mode = "silent"
    calls = documents(store)
    taken = dict(zip(calls, await asyncio.gather(*(seconds(call()) for call in calls.values())), strict=True))
    # a failed check also looks for 5 s whether TLS would have been right
    assert {name: took for name, took in taken.items() if took > (20 if name == "check" else 12)} == {}
    await until(lambda: proxy.connections == 0, "no thread waits for the store any more", 5)
    proxy.mode = "open"
    assert await store.get("black/a") is None


async def test_a_renewal_behind_a_black_hole_ends_sooner(parts: Embedded, proxy: Proxy) -> None:
    leases = through(proxy, parts).for_leases()
    etag = await leases.create(f"black/{time.time_ns()}", b"1")
    proxy.mode = "silent"
    assert await seconds(leases.replace("black/claim", b"2", etag)) < 6


async def test_an_answer_of_a_byte_now_and_then_ends_too(
    parts: Embedded, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte comes within the limit on silence, but all of them would take minutes."""
    await parts.objects.put("black/drip", b"x" * 1000)
    monkeypatch.setattr(connection, "DOCUMENT", Limits(silence=1.0, seconds=2.0))
    store = through(proxy, parts)
    proxy.mode = "drip"
    assert await seconds(store.get("black/drip")) < 4
    assert await seconds(store.list("black/")) < 4
    await until(lambda: proxy.connections == 0, "the threads have ended", 5)


async def test_files_behind_a_black_hole_end_by_their_limit_on_silence(
    parts: Embedded, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"0123456789abcdef" * (PART_SIZE // 4))  # four parts
    reference = await parts.objects.upload("black/large", large)
    monkeypatch.setattr(connection, "FILE", Limits(silence=0.5, seconds=1.0))
    monkeypatch.setattr(connection, "DOCUMENT", Limits(silence=0.5, seconds=1.0))
    store = through(proxy, parts)
    proxy.mode = "silent"
    pointer = DatasetPointer(bucket=reference.bucket, key=reference.key)
    calls = (
        store.upload("black/other", large),
        store.download(reference, tmp_path / "back"),
        store.read(reference),
        store.describe(pointer),
    )
    assert max(await asyncio.gather(*map(seconds, calls))) < 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large"]
    await until(lambda: proxy.connections == 0, "the threads have ended", 5)


async def test_a_file_may_take_longer_than_its_limits_while_it_gets_on(
    parts: Embedded, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every direction takes longer than the limits: only silence ends it."""
    monkeypatch.setattr(connection, "FILE", Limits(silence=2.0, seconds=2.0))
    store = through(proxy, parts)
    proxy.bytes_per_second = PART_SIZE / 3
    large = tmp_path / "large"
    large.write_bytes(b"0123456789abcdef" * (PART_SIZE // 16))
    reference = await store.upload("black/large", large)
    await store.download(reference, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == large.read_bytes()


async def test_a_cancelled_download_leaves_no_thread_behind(parts: Embedded, proxy: Proxy, tmp_path: Path) -> None:
    store = through(proxy, parts)
    reference = await store.put("black/file", bytes(2**20))
    proxy.mode = "drip"
    download = asyncio.create_task(store.download(reference, tmp_path / "file"))
    await until(lambda: proxy.connections, "the download has begun")
    download.cancel()
    with pytest.raises(asyncio.CancelledError):
        await download
    await until(lambda: list(tmp_path.iterdir()) == [], "the thread has ended and cleared up", 5)


async def test_calls_that_wait_for_the_store_do_not_delay_a_renewal(parts: Embedded, proxy: Proxy) -> None:
    store = through(proxy, parts)
    leases = store.at("tunestream").for_leases()
    key = f"black/{time.time_ns()}"
    etag = await leases.create(key, b"1")
    release = threading.Event()
    others = [asyncio.ensure_future(asyncio.to_thread(release.wait)) for _ in range(64)]
    proxy.mode = "silent"
    others += [asyncio.ensure_future(store.get(f"black/{number}")) for number in range(200)]
    others += [asyncio.ensure_future(store.describe(DatasetPointer(bucket="datasets", key="a"))) for _ in range(50)]
    await until(lambda: proxy.connections >= 40, "all threads of the other calls wait")
    proxy.mode = "open"
    try:
        for number in range(5):
            began = time.monotonic()
            etag = await leases.replace(key, f"{number + 2}".encode(), etag)
            assert time.monotonic() - began < 4, "a call behind the others would end with its limit, after 5 seconds"
    finally:
        release.set()
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)


# --- clocks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [-3600, 3600, 86_400 * 365])
async def test_a_machine_whose_clock_is_wrong_is_served_and_knows_the_time(parts: Embedded, ahead: int) -> None:
    def connect() -> ObjectStore:
        return ObjectStore.connect(parts.settings.store, clock=StoreClock(wall=lambda: time.time() + ahead))

    for name in documents(connect()):
        if name != "replace":
            fresh = connect()
            await documents(fresh)[name]()
            assert fresh.now() == pytest.approx(time.time(), abs=2), name
            assert fresh.for_leases().now() == pytest.approx(time.time(), abs=2), name
    assert await connect().stat("black/absent") is None, "an answer to HEAD has no body that would name the cause"


async def test_the_clock_of_another_store_is_learned_anew(parts: Embedded) -> None:
    """A store that is replaced, or whose clock is set, refuses our time at first."""
    clock = StoreClock()
    store = ObjectStore.connect(parts.settings.store, clock=clock)
    clock.note("Thu, 01 Jan 2026 00:00:00 GMT", clock.monotonic())
    await store.list("black/")
    assert store.now() == pytest.approx(time.time(), abs=2)


# --- what the store refuses ---------------------------------------------------------------------------------------


async def test_a_key_that_the_store_takes_not_is_refused_not_retried(parts: Embedded) -> None:
    """It is short enough for S3, but not for SeaweedFS."""
    began = time.monotonic()
    with pytest.raises(StoreRefused, match="255 between two slashes") as caught:
        await parts.objects.put("black/" + "k" * 256, b"")
    assert caught.value.code == "KeyTooLongError"
    assert time.monotonic() - began < 5


async def test_a_stream_goes_on_when_connections_break(proxy: Proxy, parts: Embedded) -> None:
    data = b"0123456789abcdef" * (5 * streams.RANGE // 16) + b"tail"
    reference = await parts.objects.put("black/stream", data)
    got = b""
    async for chunk in through(proxy, parts).stream(reference):
        got += chunk
        proxy.cut()
        if len(got) == 2 * streams.RANGE:
            proxy.mode = "refused"
            asyncio.get_running_loop().call_later(1.0, setattr, proxy, "mode", "open")
    assert got == data

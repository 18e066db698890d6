"""Files and uploads with the official client on the real embedded store."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from benchmarks.http.uploads import measure
from services.api.app import make_app
from services.api.database import ProjectionDatabase
from services.api.janitor.files import StoredFiles
from services.api.janitor.in_use import GRACE_SECONDS
from services.api.janitor.tombstones import Tombstones
from services.api.projection import Projection
from services.api.resources.dependencies import Dependencies
from shared.stages.ledger import FILES, UPLOADS, file_prefix, upload_prefix
from shared.store import streams
from shared.store.objects import ObjectStore
from tests.support.embedded import Embedded, api_process
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.servers import Server
from tests.support.waiting import until

ROW = b'{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n'
MB = 2**20
MEMORY = 300 * MB
"""That the api service may have, whatever the size of the files."""


@dataclass
class Replica:
    """One process of the api, over the real store."""

    client: AsyncOpenAI
    url: str
    objects: ObjectStore


@asynccontextmanager
async def replica(parts: Embedded, folder: Path, project: str) -> AsyncIterator[Replica]:
    database, objects = ProjectionDatabase(folder / "api.sqlite3"), parts.objects
    projection = Projection(database, objects, discover_seconds=3600, bus_away=lambda: None)
    app = make_app(Dependencies(database, projection, objects, FakeBus(), "http://api"), ())
    async with Server(app).running() as server:
        url = f"{server.url}/v1"
        async with AsyncOpenAI(base_url=url, api_key="none", project=project, max_retries=0) as client:
            yield Replica(client, url, objects)
    await database.close()


@pytest.fixture
async def two(parts: Embedded, tmp_path: Path) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two replicas over one store, in a project of this test's own."""
    project = f"p{random.randrange(10**9)}"
    async with AsyncExitStack() as stack:
        one, other = [
            await stack.enter_async_context(replica(parts, tmp_path / name, project)) for name in ("one", "other")
        ]
        yield one, other


async def test_three_megabytes_in_small_parts_that_come_in_parallel_to_two_replicas(
    two: tuple[Replica, Replica],
) -> None:
    data = (ROW * (3 * MB // len(ROW) + 1))[: 3 * MB]
    pieces = [data[start : start + 100_000] for start in range(0, len(data), 100_000)]
    clients = [each.client for each in two]
    upload = await clients[0].uploads.create(
        bytes=len(data), filename="rows.jsonl", mime_type="application/jsonl", purpose="fine-tune"
    )
    order = random.sample(range(len(pieces)), len(pieces))
    made = await asyncio.gather(
        *(clients[number % 2].uploads.parts.create(upload.id, data=pieces[number]) for number in order)
    )
    ids = dict(zip(order, [part.id for part in made], strict=True))
    part_ids = [ids[number] for number in range(len(pieces))]
    md5 = hashlib.md5(data).hexdigest()
    done = await asyncio.gather(
        *(client.uploads.complete(upload.id, part_ids=part_ids, md5=md5) for client in clients * 2)
    )
    files = {each.file.id for each in done if each.file}
    assert len(files) == 1
    for client in clients:
        assert (await client.files.content(*files)).read() == data
        assert [file.id async for file in client.files.list()] == [*files]


async def test_bytes_without_a_name_larger_than_a_part_of_the_store(two: tuple[Replica, Replica]) -> None:
    data = ROW * (20 * MB // len(ROW))
    made = await two[0].client.files.create(file=data, purpose="fine-tune")
    assert (made.filename, made.bytes) == ("upload", len(data))
    assert (await two[1].client.files.content(made.id)).read() == data


@pytest.mark.parametrize("path", ["files", "uploads"])
async def test_a_body_that_breaks_off_in_the_middle_leaves_nothing(two: tuple[Replica, Replica], path: str) -> None:
    one, _ = two
    upload = await one.client.uploads.create(bytes=5, filename="a", mime_type="x", purpose="batch")
    url, prefix, field = f"{one.url}/files", FILES, "file"
    if path == "uploads":
        url, prefix, field = f"{one.url}/uploads/{upload.id}/parts", f"{upload_prefix(upload.id)}parts/", "data"
    before = {entry.key for entry in await one.objects.list(prefix)}

    def begun() -> list[str | None]:
        found = one.objects._client._list_multipart_uploads(one.objects.bucket).uploads
        return [each.object_name for each in found if (each.object_name or "").startswith(prefix)]

    sent = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield f'--xx\r\nContent-Disposition: form-data; name="{field}"; filename="a"\r\n\r\n{{'.encode()
        for _ in range(3 * streams.PART_SIZE // MB):
            yield b" " * MB
        sent.set()
        await asyncio.Event().wait()

    headers = {"content-type": "multipart/form-data; boundary=xx", "openai-project": one.client.project or ""}
    async with httpx.AsyncClient(timeout=60) as client:
        request = asyncio.create_task(client.post(url, content=body(), headers=headers))
        await sent.wait()
        await until(begun, "an upload in parts has begun")
        request.cancel()
    await until(lambda: not begun(), "the upload in parts is aborted")
    assert {entry.key for entry in await one.objects.list(prefix)} == before


async def test_what_one_replica_deletes_is_gone_on_the_other_and_then_from_the_store(
    two: tuple[Replica, Replica],
) -> None:
    one, other = two
    made = [await one.client.files.create(file=ROW, purpose="fine-tune") for _ in range(3)]
    assert {file.id async for file in other.client.files.list()} == {file.id for file in made}
    await one.client.files.delete(made[0].id)
    assert {file.id async for file in other.client.files.list()} == {file.id for file in made[1:]}
    for call in (other.client.files.retrieve, other.client.files.content, other.client.files.delete):
        with pytest.raises(openai.NotFoundError):
            await call(made[0].id)

    async def certain() -> None: ...

    assert await one.objects.list(file_prefix(made[0].id))
    await Tombstones(one.objects, grace=0.0).carry_out(certain)
    assert await one.objects.list(file_prefix(made[0].id)) == []
    for each in two:
        assert {file.id async for file in each.client.files.list()} == {file.id for file in made[1:]}
        with pytest.raises(openai.NotFoundError):
            await each.client.files.retrieve(made[0].id)


async def test_a_file_whose_time_is_over_is_gone_for_all_and_then_from_the_store(
    two: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    made = await one.client.files.create(
        file=ROW, purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    kept = await one.client.files.create(file=ROW, purpose="batch")
    now = one.objects.now()
    monkeypatch.setattr(ObjectStore, "now", lambda self: now + 3600 + GRACE_SECONDS + 1)
    assert [file.id async for file in other.client.files.list()] == [kept.id]
    with pytest.raises(openai.NotFoundError):
        await other.client.files.content(made.id)

    async def certain() -> None: ...

    await StoredFiles(one.objects).remove(certain)
    assert await one.objects.list(file_prefix(made.id)) == []
    assert len(await one.objects.list(file_prefix(kept.id))) == 2


async def test_pages_are_whole_while_others_create_files(two: tuple[Replica, Replica]) -> None:
    one, other = two
    before = await asyncio.gather(*(one.client.files.create(file=ROW, purpose="batch") for _ in range(30)))
    stop = asyncio.Event()

    async def creating(client: AsyncOpenAI) -> list[str]:
        made = list[str]()
        while not stop.is_set():
            made.append((await client.files.create(file=ROW, purpose="batch")).id)
        return made

    creators = [asyncio.create_task(creating(each.client)) for each in (*two, *two)]
    try:
        for limit in (4, 9, 10_000):
            seen = [file async for file in other.client.files.list(limit=limit)]
            found = [file.id for file in seen]
            assert len(found) == len(set(found)) and set(found) >= {file.id for file in before}
            assert [file.created_at for file in seen] == sorted((file.created_at for file in seen), reverse=True)
    finally:
        stop.set()
    made = {file_id for creator in creators for file_id in await creator} | {file.id for file in before}
    for each in two:
        assert {file.id async for file in each.client.files.list(limit=50)} == made


async def test_an_upload_of_three_hundred_megabytes_costs_little_memory(
    parts: Embedded, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    async with api_process(parts, tmp_path / "api") as api:
        outcome = await measure(api, 300 * MB, part_size=32 * MB)
        assert outcome.equal

        async def body() -> AsyncIterator[bytes]:
            yield b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n{'
            for _ in range(300):
                yield b" " * MB
            yield b'\r\n--xx\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--xx--\r\n'

        headers = {"content-type": "multipart/form-data; boundary=xx"}
        async with httpx.AsyncClient(timeout=120) as client:
            answer = await client.post(f"{api.url}/v1/files", content=body(), headers=headers)
        assert answer.status_code == 200 and answer.json()["bytes"] == 300 * MB + 1
        record_property("MB of memory", api.memory() // MB)
        assert api.memory() < MEMORY, f"{api.memory() // MB} MB"
    assert await parts.objects.list(UPLOADS)

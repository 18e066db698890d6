"""Jobs that clients ask the api for, on the real store and broker: each becomes one job, whatever is away."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from openai import AsyncOpenAI

from services.api.app import make_app
from services.api.database import ProjectionDatabase
from services.api.projection import Projection
from services.api.resources.dependencies import Dependencies
from services.ingest.requests import Requests
from shared.events import JobControl, StoredFile
from shared.kafka.bus import Bus
from shared.stages import outbox
from shared.stages.ledger import ASKED, file_content_key, file_meta_key, job_key, published_key
from shared.store.objects import ObjectStore
from shared.tasks import in_background
from tests.support.data.drops import listen_for_uploads
from tests.support.embedded import Embedded
from tests.support.fakes.servers import Server
from tests.support.waiting import until


async def new_file(objects: ObjectStore) -> str:
    """Store a file as the Files API does. Returns its id."""
    file_id = f"file-{uuid.uuid4().hex[:24]}"
    content = await objects.put(file_content_key(file_id), file_id.encode())
    meta = StoredFile(
        file_id=file_id, filename="a.jsonl", purpose="fine-tune", created_at=objects.now(), content=content
    )
    await objects.put(file_meta_key(file_id), meta.model_dump_json().encode())
    return file_id


@asynccontextmanager
async def api(parts: Embedded, bus: Bus, database: Path) -> AsyncIterator[str]:
    """An instance of the api. Yields its `base_url`."""
    kept, objects = ProjectionDatabase(database), parts.objects
    projection = Projection(kept, objects, discover_seconds=10)
    dependencies = Dependencies(kept, projection, objects, bus, "http://api.test", parts.settings.model)
    try:
        async with Server(make_app(dependencies, ())).running() as server:
            yield f"{server.url}/v1"
    finally:
        await kept.close()


async def create(client: AsyncOpenAI, file: str, model: str, **headers: str) -> str:
    jobs = client.fine_tuning.jobs
    return (await jobs.create(model=model, training_file=file, extra_headers=headers)).id


async def asked_ids(objects: ObjectStore, job_ids: Sequence[str]) -> set[str]:
    """Which of the jobs were asked for, by the ledger."""
    listed = await objects.list(ASKED)
    return {entry.key.removeprefix(ASKED).removesuffix(".json") for entry in listed} & set(job_ids)


@pytest.mark.timeout(180)
async def test_two_hundred_jobs_of_twenty_clients_on_two_instances(parts: Embedded, tmp_path: Path) -> None:
    model, file = parts.settings.model.id, await new_file(parts.objects)
    async with AsyncExitStack() as stack:
        bus = Bus(parts.settings.bus, f"api-{uuid.uuid4().hex[:6]}")
        ringing = Bus(parts.settings.bus, f"ingest-{uuid.uuid4().hex[:6]}")
        requests = Requests(parts.objects, ringing)
        ringing.subscribe(JobControl, requests.rung)
        uploads = await stack.enter_async_context(listen_for_uploads(parts.settings.bus))
        for each in (bus, ringing):
            await each.start()
            stack.push_async_callback(each.stop)
        await stack.enter_async_context(in_background(requests.run()))
        urls = [await stack.enter_async_context(api(parts, bus, tmp_path / f"{n}.sqlite3")) for n in range(2)]
        clients = [
            await stack.enter_async_context(AsyncOpenAI(base_url=urls[n % 2], api_key="k", max_retries=0))
            for n in range(20)
        ]

        async def ten(client: AsyncOpenAI) -> list[str]:
            return [await create(client, file, model) for _ in range(10)]

        made = [job_id for each in await asyncio.gather(*map(ten, clients)) for job_id in each]
        assert len(set(made)) == 200, "none is doubled"
        assert await asked_ids(parts.objects, made) == set(made)
        key = file_content_key(file)
        await until(lambda: uploads.jobs(key) >= set(made), "ingest has made all of them", seconds=90)
        assert set(Counter(str(event.job_id) for event in uploads.events(key))) == set(made), "and no other"
        for client in clients[:2]:
            listed = [job async for job in client.fine_tuning.jobs.list(limit=30)]
            ours = [job for job in listed if job.training_file == file]
            assert len({job.id for job in ours}) == len(ours) >= 100
            times = [job.created_at for job in ours]
            assert times == sorted(times, reverse=True)


async def test_without_kafka_a_job_is_accepted_and_made(own_parts: Embedded, tmp_path: Path) -> None:
    parts, model = own_parts, own_parts.settings.model.id
    file = await new_file(parts.objects)
    bus = Bus(parts.settings.bus, f"api-{uuid.uuid4().hex[:6]}")
    async with AsyncExitStack() as stack:
        await bus.start()
        stack.push_async_callback(bus.stop)
        parts.kill("tansu")
        await until(lambda: bus.away_since, "the bus is known to be away", seconds=60)
        await stack.enter_async_context(in_background(Requests(parts.objects, bus).run()))
        url = await stack.enter_async_context(api(parts, bus, tmp_path / "a.sqlite3"))
        client = await stack.enter_async_context(AsyncOpenAI(base_url=url, api_key="k", max_retries=0))
        job_id = await create(client, file, model)
        assert await create(client, file, model, **{"x-stainless-retry-count": "1"}) == job_id
        await until(lambda: outbox.read(parts.objects, job_id, "ingest"), "the job is made", seconds=10)
        assert (await client.fine_tuning.jobs.retrieve(job_id)).status == "validating_files"
    assert await parts.objects.exists(job_key(job_id))
    assert not await parts.objects.exists(published_key(job_id, "ingest"))


@pytest.mark.parametrize("step", ["commit", "publish"])
async def test_an_ingest_that_dies_between_two_steps_leaves_them_to_the_next(
    parts: Embedded, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects, model = parts.objects, parts.settings.model.id
    file = await new_file(objects)

    async def die(*_: object) -> None:
        raise asyncio.CancelledError

    bus = Bus(parts.settings.bus, f"api-{uuid.uuid4().hex[:6]}")
    async with AsyncExitStack() as stack:
        uploads = await stack.enter_async_context(listen_for_uploads(parts.settings.bus))
        await bus.start()
        stack.push_async_callback(bus.stop)
        url = await stack.enter_async_context(api(parts, bus, tmp_path / "a.sqlite3"))
        client = await stack.enter_async_context(AsyncOpenAI(base_url=url, api_key="k", max_retries=0))
        job_id = await create(client, file, model)
        with monkeypatch.context() as broken:
            broken.setattr(outbox, step, die)
            with pytest.raises(asyncio.CancelledError):
                await Requests(objects, bus).make_jobs()
        assert await objects.exists(job_key(job_id))
        await Requests(objects, bus).make_jobs()
        await until(lambda: uploads.jobs(file_content_key(file)), "the job is announced")
        assert uploads.jobs(file_content_key(file)) == {job_id}
        assert await objects.exists(published_key(job_id, "ingest"))

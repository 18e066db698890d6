"""Every request for a job is a new job; only the retry of a client's first try is the job of that try."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI

from services.api.app import make_app
from services.api.database import ProjectionDatabase
from services.api.projection import Projection
from services.api.resources.dependencies import Dependencies
from services.ingest.requests import Requests
from shared.errors import StoreUnavailable
from shared.stages.ledger import ASKED, asked_key, job_key
from tests.support.data.keys import add_key, secret
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.servers import Server
from tests.support.fakes.store import FakeStore
from tests.unit.api.conftest import URL, Api
from tests.unit.api.resources.fine_tuning.conftest import BASE, MODEL, Tuning


async def create(client: AsyncOpenAI, file: str, retry: int = 0, **body: object) -> str:
    """Create a job. `retry`: as the client does when it tries for the n-th time again."""
    headers = {"x-stainless-retry-count": str(retry)}
    jobs = client.fine_tuning.jobs
    return (await jobs.create(model=BASE, training_file=file, extra_body=body, extra_headers=headers)).id


async def test_the_same_body_again_is_another_job(tuning: Tuning, client: AsyncOpenAI) -> None:
    file = await tuning.file()
    made = [await create(client, file) for _ in range(3)]
    assert len(set(made)) == 3
    await tuning.ingest()
    reruns = [(await tuning.api.get(f"/jobs/{job_id}"))["id"] for job_id in made]
    assert reruns == made and sorted(tuning.asked()) == sorted(made)


async def test_a_retry_is_the_job_of_the_first_try(tuning: Tuning, client: AsyncOpenAI) -> None:
    file = await tuning.file()
    first = await create(client, file)
    assert await create(client, file, 1) == first
    await tuning.ingest()
    assert await create(client, file, 2) == first
    assert tuning.asked() == [first]
    assert await create(client, file) != first, "without the header it is a new one"


@pytest.mark.parametrize(("seconds", "same"), [(599, True), (601, False)])
async def test_a_retry_counts_for_ten_minutes_of_the_stores_clock(
    tuning: Tuning, client: AsyncOpenAI, seconds: float, same: bool
) -> None:
    file = await tuning.file()
    first = await create(client, file)
    tuning.api.clock.now += seconds
    assert (await create(client, file, 1) == first) is same


async def test_a_retry_of_another_body_or_key_or_file_is_a_new_job(tuning: Tuning, client: AsyncOpenAI) -> None:
    file = await tuning.file()
    made = {await create(client, file, suffix="a")}
    made.add(await create(client, file, 1, suffix="b"))
    made.add(await create(client, await tuning.file(), 1, suffix="a"))
    # other bytes, but the same settings: the chain of jobs is the same
    made.add(await create(client, file, 1, suffix="a", seed=0))
    assert len(made) == 4


@pytest.mark.parametrize("broken", ["lost answer", "no bus", "no first try"])
async def test_a_first_try_that_failed_is_made_good_by_its_retry(
    tuning: Tuning, client: AsyncOpenAI, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await tuning.file()
    if broken == "lost answer":
        create_in_store = FakeStore.create

        async def lost(self: FakeStore, key: str, data: bytes) -> str:
            await create_in_store(self, key, data)
            raise StoreUnavailable("the answer was lost")

        monkeypatch.setattr(FakeStore, "create", lost)
        with pytest.raises(openai.InternalServerError):
            await create(client, file)
        monkeypatch.undo()
    elif broken == "no bus":
        tuning.api.bus.available = False
        await create(client, file)
    retried = await create(client, file, 1)
    assert tuning.asked() == [retried]


async def test_a_retry_beside_its_first_try_is_one_job(tuning: Tuning, client: AsyncOpenAI) -> None:
    file = await tuning.file()
    made = await asyncio.gather(*(create(client, file, retry) for retry in (0, 1, 2)))
    assert len(set(made)) == 1 and tuning.asked() == [made[0]]


async def test_a_late_first_try_takes_the_job_of_its_retry_once(tuning: Tuning, client: AsyncOpenAI) -> None:
    file = await tuning.file()
    retried = await create(client, file, 1)
    tuning.api.clock.now += 5
    assert await create(client, file) == retried
    assert await create(client, file) != retried, "the next one is a new job"


async def test_a_new_request_long_after_a_retry_is_a_new_job(tuning: Tuning, client: AsyncOpenAI) -> None:
    file = await tuning.file()
    retried = await create(client, file, 1)
    tuning.api.clock.now += 11
    assert await create(client, file) != retried


async def test_a_dropped_or_retried_job_of_the_same_settings_keeps_its_number(
    tuning: Tuning, client: AsyncOpenAI
) -> None:
    file = await tuning.file()
    first = await create(client, file)
    await tuning.ingest()
    answer = await tuning.api.client.post(f"/v1/fine_tuning/jobs/{first}/cancel")
    assert answer.status_code == 200
    second = await create(client, file)
    await tuning.ingest()
    await tuning.api.objects.delete(asked_key(second))  # the janitor, when nobody needs it
    third = await create(client, file)
    assert len({first, second, third}) == 3
    assert await tuning.api.objects.get(job_key(second))


async def test_a_long_chain_takes_few_calls_of_a_new_process(tuning: Tuning, client: AsyncOpenAI) -> None:
    file = await tuning.file()
    for _ in range(100):
        await create(client, file)
    tuning.api.clock.now += 3600
    store = tuning.api.objects
    dependencies = Dependencies(tuning.api.database, tuning.api.projection, store, tuning.api.bus, URL, MODEL)
    async with Server(make_app(dependencies, ())).running() as server:
        fresh = AsyncOpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0)
        store.calls.clear()
        await create(fresh, file)
        assert len(store.calls) < 80
        store.calls.clear()
        await create(fresh, file)
        assert len(store.calls) < 12
        await fresh.close()


async def test_eighty_jobs_of_twenty_clients_on_two_instances(api: Api, tuning: Tuning, tmp_path: Path) -> None:
    """None is lost and none doubled, and each instance shows those that it took at once, in order."""
    file = await tuning.file()
    async with AsyncExitStack() as stack:
        database = ProjectionDatabase(tmp_path / "second.sqlite3")
        stack.push_async_callback(database.close)
        projection = Projection(database, api.objects, discover_seconds=10)
        second = Dependencies(database, projection, api.objects, FakeBus(), URL, MODEL)
        server = await stack.enter_async_context(Server(make_app(second, ())).running())
        urls = [tuning.url, server.url]
        clients = [
            await stack.enter_async_context(AsyncOpenAI(base_url=f"{urls[n % 2]}/v1", api_key="k", max_retries=0))
            for n in range(20)
        ]

        async def four(number: int) -> list[str]:
            made = []
            for _ in range(4):
                made.append(await create(clients[number], file, suffix=f"s{number % 3}"))
                listed = [job.id async for job in clients[number].fine_tuning.jobs.list(limit=7)]
                assert len(listed) == len(set(listed))
                assert set(made) <= set(listed), "a list is complete while others create"
                assert [each for each in listed if each in made] == made[::-1], "newest first"
            return made

        counter = iter(range(10**9))
        api.objects._clock = lambda: api.clock.now + next(counter) * 1e-3
        made = [job_id for each in await asyncio.gather(*map(four, range(20))) for job_id in each]
    assert len(made) == len(set(made)) == 80
    assert len(await api.objects.list(ASKED)) == 80
    bus = FakeBus()
    await Requests(api.objects, bus).make_jobs()
    assert Counter(str(each.subject) for each in bus.published) == Counter(made)


async def test_a_quota_refuses_a_new_job_but_not_the_retry_of_one(tuning: Tuning) -> None:
    objects = tuning.api.objects
    for key, project in (("b", "default"), ("c", "acme")):
        await add_key(objects, key, project=project, rights=("train",), limits={"max_open_jobs": 1})
    file = await tuning.file()
    async with (
        AsyncOpenAI(base_url=f"{tuning.url}/v1", api_key=secret("b"), max_retries=0) as client,
        AsyncOpenAI(base_url=f"{tuning.url}/v1", api_key=secret("c"), max_retries=0) as other,
    ):
        first = await create(client, file)
        with pytest.raises(openai.RateLimitError) as caught:
            await create(client, file)
        assert caught.value.code == "exceeded_quota" and caught.value.response.headers["retry-after"]
        assert await create(client, file, 1) == first
        assert await create(other, await tuning.file(project="acme")), "of each project"

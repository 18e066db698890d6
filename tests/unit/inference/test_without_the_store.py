"""What is loaded is served without the store, and a store that answers is asked seldom."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

from services.inference.registry import aliases as aliases_module
from services.inference.registry import trained as trained_module
from services.inference.registry.aliases import FRESH_SECONDS, Aliases
from services.inference.registry.first_requests import FirstRequests
from services.inference.registry.trained import LISTED_SECONDS, TrainedModels
from shared.errors import StoreUnavailable
from shared.events import Deployed, JobFailed, StageName
from shared.lookups import MOST_MISSING
from shared.stages import outbox
from tests.support.data.trained_models import BASE, TRACEPARENT, add_job, add_trained, job_id
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore
from tests.support.waiting import until
from tests.unit.inference.conftest import ServiceUnderTest, running_service
from tests.unit.inference.test_work import attempt


class Hanging(FakeStore):
    """While `hangs` is set, every call waits; once it is not any more, the calls fail that waited."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.hangs = False
        self.over = asyncio.Event()

    async def before(self, operation: str, key: str) -> None:
        await super().before(operation, key)
        if self.hangs:
            await self.over.wait()
            raise StoreUnavailable("a test let it hang")


class Late(FakeStore):
    """The answer to the next call after `late` was set is on its way until `arrives` is set."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.late = False
        self.arrives = asyncio.Event()

    async def get(self, key: str) -> tuple[bytes, str] | None:
        found = await super().get(key)
        if self.late:
            self.late = False
            await self.arrives.wait()
        return found


def version(number: int) -> Deployed:
    return Deployed(model=f"model-{number}", job_id=f"job-{number}", at=float(number))


# --- the service ---------------------------------------------------------------------------------------------------


@pytest.fixture
def never_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read is never new enough, so the store is asked whenever it may be."""
    monkeypatch.setattr(aliases_module, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(aliases_module, "NOT_FOUND_SECONDS", 0.0)
    monkeypatch.setattr(trained_module, "LISTED_SECONDS", 0.0)


@pytest.mark.usefixtures("never_news")
async def test_what_is_loaded_is_served_while_the_store_is_away(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)
    await service.work(await attempt(service.objects))
    asked = ("support", "SUPPORT", model)
    for name in asked:
        assert (await service.chat(name)).status_code == 200
    listed = (await service.http.get("/v1/models")).json()

    service.objects.available = False

    for name in asked * 3:
        answer = await service.chat(name)
        assert (answer.status_code, answer.json().get("model")) == (200, model)
    assert (await service.http.get("/v1/models")).json() == listed
    service.vllm.adapters.clear()  # vLLM was restarted: the adapter is on the disk
    assert (await service.chat("support")).status_code == 200
    assert (await service.chat("nobody-knows")).status_code == 503, "it may be there"


@pytest.mark.usefixtures("never_news")
async def test_no_request_waits_for_a_store_that_hangs(tmp_path: Path, clock: Clock) -> None:
    objects = Hanging(clock)
    async with running_service(tmp_path, objects, clock) as service:
        model = await add_trained(objects)
        await service.http.post("/deployments/support", json={"model": model})
        for name in ("support", model):
            assert (await service.chat(name)).status_code == 200
        await service.http.get("/v1/models")
        objects.hangs = True
        began = time.monotonic()

        answers = [await service.chat(name) for name in ("support", model) * 10]
        listed = await service.http.get("/v1/models")
        unknown = await service.chat("ft:tiny-base:tunestream:x:aaaaaaaa")

        assert time.monotonic() - began < 9.5
        assert [answer.status_code for answer in [*answers, listed]] == [200] * 21
        assert (unknown.status_code, unknown.headers["retry-after"]) == (503, "2")
        objects.over.set()


async def test_a_thousand_requests_ask_the_store_once_a_second_for_an_alias_and_for_what_was_deleted(
    tmp_path: Path, objects: FakeStore, clock: Clock
) -> None:
    async with running_service(tmp_path, objects, clock) as service:
        model = await add_trained(objects)
        await service.work(await attempt(objects))
        for name in ("support", model):
            await service.chat(name)
        objects.calls.clear()
        began = time.monotonic()

        for _ in range(10):
            await asyncio.gather(*(service.chat(name) for name in (model, "support", BASE) for _ in range(5)))

        seconds = time.monotonic() - began
        asked = Counter(objects.calls)
        assert set(asked) <= {("get", "deployments/support.json"), ("list", "deleted/models/")}
        assert max(asked.values(), default=0) <= 1 + seconds / FRESH_SECONDS


# --- aliases -------------------------------------------------------------------------------------------------------


async def test_an_alias_is_read_once_by_all_requests_together(clock: Clock) -> None:
    objects = Hanging(clock)
    aliases = Aliases(objects, timer=clock)
    await aliases.promote("support", version(1))
    objects.calls.clear()
    for _ in range(3):
        clock.now += FRESH_SECONDS
        found = await asyncio.gather(*(aliases.get("support") for _ in range(100)))
        assert {each.current.model for each in found if each} == {"model-1"}

    assert objects.calls == [("get", "deployments/support.json")] * 3


async def test_an_outage_is_over_when_the_store_answers_again(objects: FakeStore, clock: Clock) -> None:
    here, elsewhere = Aliases(objects, timer=clock), Aliases(objects)
    await here.promote("support", version(1))
    await elsewhere.promote("support", version(2))
    objects.available = False
    for _ in range(100):
        clock.now += 60.0
        found = await here.get("support")
        assert found is not None and found.current.model == "model-1"

    objects.available = True
    clock.now += 60.0

    found = await here.get("support")
    assert found is not None and found.current.model == "model-2"


async def test_a_change_of_this_process_is_not_undone_by_an_older_answer(clock: Clock) -> None:
    objects = Late(clock)
    aliases = Aliases(objects, timer=clock)
    await aliases.promote("support", version(1))
    clock.now += FRESH_SECONDS
    objects.late = True
    reading = asyncio.create_task(aliases.get("support"))
    await until(lambda: not objects.late, "the old version is on its way")
    await aliases.promote("support", version(2))
    objects.arrives.set()
    await reading

    found = await aliases.get("support")

    assert found is not None and found.current.model == "model-2"


async def test_an_alias_that_is_missing_is_asked_for_once_a_second(objects: FakeStore, clock: Clock) -> None:
    aliases = Aliases(objects, timer=clock)
    for _ in range(100):
        assert await aliases.get("nobody") is None
    assert len(objects.calls) == 1

    await Aliases(objects).promote("nobody", version(1))
    clock.now += 1.1

    assert await aliases.get("nobody") is not None


async def test_an_outage_does_not_make_one_alias_of_two(objects: FakeStore, clock: Clock) -> None:
    """`Support` is an alias of an older version, which this process has not met yet."""
    document = (await Aliases(objects).promote("support", version(1))).model_copy(update={"alias": "Support"})
    objects.add("deployments/Support.json", document.model_dump_json().encode())
    aliases = Aliases(objects, timer=clock)
    assert await aliases.get("support") is not None
    objects.available = False

    with pytest.raises(StoreUnavailable):
        await aliases.get("Support")


async def test_names_that_nobody_has_do_not_fill_the_memory(objects: FakeStore, clock: Clock) -> None:
    aliases, trained = Aliases(objects, timer=clock), TrainedModels(objects, timer=clock)
    for number in range(MOST_MISSING + 100):
        await aliases.get(f"nobody-{number}")
        await trained.find(f"ft:tiny-base:tunestream:x:{number:a>8}".replace("0", "b").replace("1", "c"))

    assert len(aliases._absent) == MOST_MISSING
    assert len(trained._missing._until) <= MOST_MISSING


async def test_every_alias_is_listed_with_one_call_while_none_changes(objects: FakeStore, clock: Clock) -> None:
    aliases = Aliases(objects, timer=clock)
    for number in range(5):
        await aliases.promote(f"alias-{number}", version(number))
    await aliases.all()
    await Aliases(objects).promote("alias-3", version(9))
    objects.calls.clear()

    found = await aliases.all()

    assert [each.current.model for each in found] == ["model-0", "model-1", "model-2", "model-9", "model-4"]
    assert objects.calls == [("list", "deployments/"), ("get", "deployments/alias-3.json")]


# --- models --------------------------------------------------------------------------------------------------------


async def failed(objects: FakeStore, name: str, stage: StageName) -> None:
    job = job_id(name)
    await add_job(objects, name)
    event = JobFailed(job_id=job, stage=stage, code="x", message="y")
    await outbox.commit(objects, outbox.result_of(job, stage, 1, "test", "failed", event, 1.0))


@pytest.mark.parametrize("stage", ["validate", "trainer"])
async def test_a_job_that_failed_is_not_read_again(objects: FakeStore, clock: Clock, stage: StageName) -> None:
    model = await add_trained(objects, "good")
    for number in range(20):
        await failed(objects, f"failed {number}", stage)
    trained = TrainedModels(objects, timer=clock)
    assert [each.model for each in await trained.all()] == [model]
    objects.calls.clear()
    clock.now += LISTED_SECONDS

    assert [each.model for each in await trained.all()] == [model]

    assert objects.calls == [("folders", "jobs/")]


async def test_a_list_is_made_once_for_all_who_ask_and_not_again_for_a_while(clock: Clock) -> None:
    objects = Hanging(clock)
    for number in range(5):
        await add_job(objects, f"under way {number}")
    model = await add_trained(objects)
    trained = TrainedModels(objects, timer=clock)
    objects.calls.clear()

    lists = await asyncio.gather(*(trained.all() for _ in range(50)))

    assert {tuple(each.model for each in found) for found in lists} == {(model,)}
    calls = len(objects.calls)
    assert calls == 1 + 1 + 5 * 2
    await trained.all()
    assert len(objects.calls) == calls
    later = await add_trained(objects, "under way 1", finished_at=2000.0)
    clock.now += LISTED_SECONDS
    assert [each.model for each in await trained.all()] == [later, model]


async def test_a_model_that_was_asked_for_is_listed_at_once(objects: FakeStore, clock: Clock) -> None:
    trained = TrainedModels(objects, timer=clock)
    assert await trained.all() == []
    model = await add_trained(objects)
    await trained.find(model)

    assert [each.model for each in await trained.all()] == [model]


async def test_a_hundred_first_requests_look_a_model_up_once(objects: FakeStore, clock: Clock) -> None:
    model = await add_trained(objects, checkpoint=5)
    trained = TrainedModels(objects, timer=clock)
    objects.calls.clear()
    name = f"{model}:ckpt-step-5"

    found = await asyncio.gather(*(trained.find(name) for _ in range(100)))

    assert {each and each.model for each in found} == {name}
    calls = list(objects.calls)
    assert len(calls) == 3
    assert await trained.find(name) and await trained.find(model)
    assert objects.calls == calls


# --- traces --------------------------------------------------------------------------------------------------------


async def test_the_lookup_of_a_trace_delays_no_request(clock: Clock) -> None:
    objects = Hanging(clock)
    model = await add_trained(objects)
    await add_job(objects)
    requests = FirstRequests(TrainedModels(objects, timer=clock), timer=clock)
    objects.hangs = True
    async with asyncio.timeout(10):
        traces = [await requests.job_trace(model, tuned=True, asked_by=None) for _ in range(10)]
    assert {each.traceparent for each in traces} == {None}
    await until(lambda: objects.calls[-1][0] == "folders", "it is looked up")
    objects.hangs = False
    objects.over.set()
    clock.now += 60.0

    async def known() -> bool:
        return (await requests.job_trace(model, tuned=True, asked_by=None)).traceparent == TRACEPARENT

    await until(known, "it is known")

"""A deployment and its outages: an owner in doubt does nothing that others see, what is broken does not hold its slot,
and clocks that jump decide nothing."""

from __future__ import annotations

import asyncio
import errno
import functools
import math
import resource
import time
from pathlib import Path

import httpx
import pytest

from services.inference import app as composition
from services.inference.domain.deployments import rollback_target
from services.inference.errors import VllmUnavailable
from services.inference.gateway.asked import preferred_wait
from services.inference.gateway.gateway import Gateway
from services.inference.registry.aliases import Aliases
from services.inference.registry.trained import TrainedModels
from services.inference.vllm.server import Vllm
from shared.errors import ConfigError, StoreUnavailable, TransientError
from shared.events import Deployed, Deployment, ModelDeployed
from shared.stages.ledger import deployment_key
from tests.support.data.jobs import FakeClaim
from tests.support.data.trained_models import BASE, add_trained, job_id
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore
from tests.support.waiting import until
from tests.unit.inference.conftest import ServiceUnderTest, running_service
from tests.unit.inference.test_work import attempt


def deployments(service: ServiceUnderTest) -> list[str]:
    return [key for key in service.objects.held if key.startswith("deployments/")]


class Questions(FakeClaim):
    """A claim that is certain for the first `answers` questions, and in doubt from then on."""

    def __init__(self, answers: int) -> None:
        super().__init__()
        self.answers = answers

    async def certain(self) -> None:
        if self.asked == self.answers:
            self.sure.clear()
        await super().certain()


async def test_an_owner_in_doubt_loads_nothing_and_moves_nothing(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)
    claim = Questions(0)
    deploying = asyncio.create_task(service.work(await attempt(service.objects, claim=claim)))
    await until(lambda: claim.asked, "it asks whether it still has the job")
    assert (service.vllm.loads, deployments(service)) == ([], [])

    claim.sure.set()
    await deploying

    assert service.vllm.loads == [model]
    assert (await service.chat("support")).json()["model"] == model


async def test_an_owner_that_comes_into_doubt_after_loading_moves_nothing(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)
    claim = Questions(1)
    deploying = asyncio.create_task(service.work(await attempt(service.objects, claim=claim)))
    await until(lambda: claim.asked == 2, "it asks again before it moves the alias")
    assert (service.vllm.loads, deployments(service)) == ([model], [])

    claim.sure.set()
    assert isinstance(await deploying, ModelDeployed)

    assert deployments(service) == ["deployments/support.json"]


@pytest.mark.parametrize(("answers", "loads"), [(0, 0), (1, 1)])
async def test_an_owner_that_turns_out_to_have_lost_the_job_leaves_nothing_behind(
    service: ServiceUnderTest, answers: int, loads: int
) -> None:
    await add_trained(service.objects)
    claim = Questions(answers)
    deploying = asyncio.create_task(service.work(await attempt(service.objects, claim=claim)))
    await until(lambda: claim.asked > answers, "it asks whether it still has the job")

    deploying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deploying

    assert len(service.vllm.loads) == loads
    assert deployments(service) == []


# --- what is broken ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
async def test_vllm_that_is_down_is_named_with_its_setting(service: ServiceUnderTest) -> None:
    await add_trained(service.objects)
    service.vllm.healthy = False
    began = time.monotonic()

    with pytest.raises(TransientError, match=r"vLLM at http://.* \(TUNESTREAM_VLLM__URL\) does not answer$"):
        await service.work(await attempt(service.objects))

    assert time.monotonic() - began < 5


@pytest.mark.usefixtures("impatient")
async def test_a_vllm_that_hangs_while_it_is_asked_is_left(
    service: ServiceUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_trained(service.objects)
    asked = asyncio.Event()

    async def hang(*_: object) -> str:
        asked.set()
        await asyncio.Event().wait()
        return ""

    monkeypatch.setattr(service.work._trial, "_live_check", hang)
    deploying = asyncio.create_task(service.work(await attempt(service.objects)))
    await asked.wait()
    service.vllm.healthy = False
    service.work._trial._vllm.suspect()

    with pytest.raises(TransientError, match="TUNESTREAM_VLLM__URL"):
        await asyncio.wait_for(deploying, 10)

    assert deployments(service) == []


@pytest.mark.usefixtures("impatient")
async def test_the_adapter_is_downloaded_once_however_often_vllm_is_down(service: ServiceUnderTest) -> None:
    await add_trained(service.objects)
    service.vllm.healthy = False
    for _ in range(3):
        with pytest.raises(TransientError):
            await service.work(await attempt(service.objects))

    assert len([key for name, key in service.objects.calls if name == "read" and key.endswith(".safetensors")]) == 1


async def test_a_full_disk_is_waited_for(service: ServiceUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    await add_trained(service.objects)

    async def download(*_: object) -> None:
        raise OSError(errno.ENOSPC, "a test said so")

    monkeypatch.setattr(FakeStore, "download", download)
    with pytest.raises(TransientError, match=r"TUNESTREAM_INFERENCE__ADAPTER_DIR\) is full"):
        await service.work(await attempt(service.objects))


async def test_a_vllm_that_does_not_share_the_folder_is_a_wrong_setting(
    service: ServiceUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_trained(service.objects)

    async def load(*_: object) -> tuple[int, str]:
        return 404, "Loading lora x failed: No adapter found for /x"

    monkeypatch.setattr(service.work._trial._vllm, "_post", load)
    with pytest.raises(ConfigError, match=r"TUNESTREAM_VLLM__URL.*TUNESTREAM_INFERENCE__ADAPTER_DIR"):
        await service.work(await attempt(service.objects))

    assert deployments(service) == []


@pytest.mark.parametrize("answer", [httpx.Response(200, text="<html>"), httpx.Response(200, json={})])
async def test_a_vllm_that_answers_nonsense_about_its_sleep_is_asked_again(answer: httpx.Response) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda request: answer)) as http:
        with pytest.raises(VllmUnavailable):
            await Vllm(http, "http://x", BASE, start_timeout=1).wake()


async def test_a_store_that_is_away_is_waited_for(service: ServiceUnderTest) -> None:
    await add_trained(service.objects)
    asked = await attempt(service.objects)
    service.objects.available = False
    with pytest.raises(StoreUnavailable):
        await service.work(asked)


# --- clocks --------------------------------------------------------------------------------------------------------


async def test_the_time_of_a_deployment_is_that_of_the_store(service: ServiceUnderTest) -> None:
    await add_trained(service.objects)
    service.clock.now = 5_000_000.0

    await service.work(await attempt(service.objects))

    [deployment] = (await service.http.get("/deployments")).json()["data"]
    assert deployment["current"]["at"] == 5_000_000.0


async def test_a_clock_that_is_set_back_an_hour_serves_no_old_model(
    objects: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [1_000_000.0]
    monkeypatch.setattr(time, "time", lambda: times[0])
    timer = [0.0]
    here, elsewhere = Aliases(objects, timer=lambda: timer[0]), Aliases(objects)
    await here.promote("support", Deployed(model="old", job_id="one", at=1.0))
    await elsewhere.promote("support", Deployed(model="new", job_id="two", at=2.0))

    times[0] -= 3600
    timer[0] += 1.1

    found = await here.get("support")
    assert found is not None and found.current.model == "new"


def test_no_timer_of_the_registry_is_a_clock_that_can_be_set(objects: FakeStore) -> None:
    assert Aliases(objects)._timer is time.monotonic
    assert TrainedModels(objects)._timer is time.monotonic


# --- two owners of one job -----------------------------------------------------------------------------------------


class Paused(FakeStore):
    """A client of the store that is paused, as a whole process can be, right before an operation on an alias; `wake`
    ends that."""

    def __init__(self, store: FakeStore, operation: str) -> None:
        super().__init__(disk=store.disk)
        self.operation = operation
        self.asleep, self.wake = asyncio.Event(), asyncio.Event()

    async def before(self, operation: str, key: str) -> None:
        await super().before(operation, key)
        if operation == self.operation and key.startswith("deployments/") and not self.wake.is_set():
            self.asleep.set()
            await self.wake.wait()


async def current(objects: FakeStore) -> Deployment:
    found = await objects.get(deployment_key("support"))
    assert found is not None
    return Deployment.model_validate_json(found[0])


async def roll_back(aliases: Aliases, to: str | None = None, expected: str | None = None) -> Deployment:
    found = await aliases.read("support")
    assert found is not None
    target = rollback_target(found, to, expected)
    return found if target is None else await aliases.roll_back(found, target)


@pytest.mark.parametrize("operation", ["get", "create", "replace"])
@pytest.mark.parametrize("later", ["nothing", "another promotion", "a rollback"])
async def test_an_owner_paused_between_reading_and_writing_moves_no_alias_back(
    objects: FakeStore, operation: str, later: str
) -> None:
    """Its successor has promoted the job meanwhile, and more has happened since."""
    successor = Aliases(objects)
    if operation == "replace":
        await successor.promote("support", Deployed(model="zero", job_id="zero", at=0.0))
    store = Paused(objects, operation)
    mine = Deployed(model="one", job_id="one", at=1.0)
    zombie = asyncio.create_task(Aliases(store).promote("support", mine))
    await store.asleep.wait()
    await successor.promote("support", mine.model_copy(update={"at": 2.0}))
    if later == "another promotion":
        await successor.promote("support", Deployed(model="two", job_id="two", at=3.0))
    if later == "a rollback":
        await successor.deploy("support", Deployed(model="two", job_id="two", at=3.0))
        await roll_back(successor)
    before = await current(objects)

    store.wake.set()
    seen = await zombie

    assert await current(objects) == before == seen
    assert [version.job_id for version in before.history].count("one") == 1 + (later == "a rollback")


async def test_a_doubt_between_reading_and_writing_is_resolved_before_the_write(objects: FakeStore) -> None:
    claim = FakeClaim()
    claim.sure.clear()
    owner = asyncio.create_task(
        Aliases(objects).promote("support", Deployed(model="one", job_id="one", at=1.0), None, claim.certain)
    )
    await until(lambda: claim.asked, "it asks")
    await Aliases(objects).promote("support", Deployed(model="one", job_id="one", at=2.0))
    before = await current(objects)

    claim.sure.set()
    await owner

    assert await current(objects) == before


async def test_two_owners_at_once_promote_a_job_once(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)
    events = await asyncio.gather(*[service.work(await attempt(service.objects)) for _ in range(5)])

    assert all(isinstance(event, ModelDeployed) and event.model == model for event in events)
    assert len({event.model_dump_json() for event in events}) == 1
    assert [version.job_id for version in (await current(service.objects)).history] == [job_id("one")]


# --- clients that do not want to wait ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("wait=5", 5), ("respond-async, wait=10", 10), ('WAIT = "3"', 3), ("", math.inf), ("await=5", math.inf)],
)
def test_how_long_a_client_wants_to_wait_is_in_its_header(header: str, seconds: float) -> None:
    assert preferred_wait(header) == seconds


async def test_a_client_that_prefers_not_to_wait_for_vllm_does_not(
    tmp_path: Path, objects: FakeStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composition, "Gateway", functools.partial(Gateway, patience=60))
    async with running_service(tmp_path, objects, clock) as service:
        assert (await service.chat(BASE)).status_code == 200
        service.vllm.healthy = False
        service.vllm.breaks = 1
        body = {"model": BASE, "messages": [{"role": "user", "content": "hi"}]}
        began = time.monotonic()

        answer = await service.http.post("/v1/chat/completions", json=body, headers={"prefer": "wait=0"})

        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "service_unavailable")
        assert time.monotonic() - began < 10


async def test_too_many_open_files_do_not_make_vllm_look_dead(service: ServiceUnderTest) -> None:
    assert (await service.chat(BASE)).status_code == 200
    vllm = service.work._trial._vllm
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    await vllm._probes.aclose()  # whose connection is open
    vllm._probes = httpx.AsyncClient(trust_env=False)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        assert await vllm.healthy()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    service.vllm.server.stop_listening()
    service.vllm.server.break_connections()
    assert not await vllm.healthy()
    await vllm._probes.aclose()

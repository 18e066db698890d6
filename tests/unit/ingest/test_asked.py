"""A job that the api was asked for is made, once, with the manifest of the request, whatever is away meanwhile."""

from __future__ import annotations

import json

import pytest

from services.ingest.requests import Requests
from shared import ids
from shared.errors import StoreUnavailable
from shared.events import Asked, DatasetUploaded, Job, Origin
from shared.stages import outbox, quarantine
from shared.stages.ledger import ASKED, asked_key, job_key
from tests.support.data.job_history import JobHistory
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.faults import Faults, FaultyStore
from tests.support.fakes.store import FakeStore
from tests.support.spans import Spans


def request(rerun: int = 0) -> Asked:
    job = JobHistory().job
    spec = job.spec.model_copy(update={"rerun": rerun})
    job_id = ids.job_id(job.dataset.bucket, job.dataset.key, job.dataset.sha256, spec)
    about = {"job_id": job_id, "spec": spec, "origin": Origin(kind="api", source="root"), "project": "acme"}
    return Asked(job=job.model_copy(update=about), key_id="root", request="0" * 64)


class Ingest:
    def __init__(self) -> None:
        self.objects, self.bus = FakeStore(), FakeBus()
        self.start()

    def start(self) -> None:
        self.requests = Requests(self.objects, self.bus)

    async def ask(self, rerun: int = 0) -> Job:
        asked = request(rerun)
        await self.objects.create(asked_key(asked.job.job_id), asked.model_dump_json().encode())
        return asked.job

    async def made(self, job_id: str) -> Job:
        found = await self.objects.get(job_key(job_id))
        assert found is not None
        return Job.model_validate_json(found[0])


@pytest.fixture
def ingest() -> Ingest:
    return Ingest()


async def test_the_job_has_the_manifest_of_the_request_and_is_announced(ingest: Ingest, spans: Spans) -> None:
    asked = await ingest.ask()
    await ingest.requests.make_jobs()
    assert await ingest.made(asked.job_id) == asked
    [published] = ingest.bus.published
    assert isinstance(published.event, DatasetUploaded)
    assert (published.event.job_id, published.event.spec, published.event.origin.kind) == (
        asked.job_id,
        asked.spec,
        "api",
    )
    span = spans.one("ingest")
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == asked.traceparent.split("-")[2], "the api has made the root of the trace"


async def test_a_request_of_a_version_whose_default_was_nf4_is_made(ingest: Ingest) -> None:
    asked = request()
    document = asked.model_dump(mode="json")
    document["job"]["spec"]["lora"]["quantization"] = "nf4"
    await ingest.objects.create(asked_key(asked.job.job_id), json.dumps(document).encode())
    await ingest.requests.make_jobs()
    assert (await ingest.made(asked.job.job_id)).spec.lora.quantization == "nf4"
    assert len(ingest.bus.published) == 1


async def test_a_job_is_made_and_announced_once(ingest: Ingest) -> None:
    await ingest.ask()
    for _ in range(2):
        await ingest.requests.make_jobs()
        ingest.start()  # a restart forgets everything
        await ingest.requests.make_jobs()
    assert len(ingest.bus.published) == 1


async def test_without_a_bus_all_jobs_are_made_and_their_stage_finds_them(ingest: Ingest) -> None:
    asked = [await ingest.ask(rerun) for rerun in range(3)]
    ingest.bus.available = False
    await ingest.requests.make_jobs()
    for job in asked:
        result = await outbox.read(ingest.objects, job.job_id, "ingest")
        assert result is not None and result.outcome == "completed"
        assert [key for key in ingest.objects.held if key.startswith("pending/validate/") and job.job_id in key]
    ingest.bus.available = True
    await ingest.requests.make_jobs()
    assert sorted(str(each.subject) for each in ingest.bus.published) == sorted(job.job_id for job in asked)


@pytest.mark.parametrize("lost", [["published.json"], ["published.json", "result.json"]])
async def test_a_crash_after_any_write_is_made_good_by_the_next_start(ingest: Ingest, lost: list[str]) -> None:
    asked = await ingest.ask()
    await ingest.requests.make_jobs()
    for name in lost:
        await ingest.objects.delete(f"jobs/{asked.job_id}/ingest/{name}")
    ingest.start()
    await ingest.requests.make_jobs()
    assert await ingest.made(asked.job_id) == asked
    assert len({each.ce_id for each in ingest.bus.published}) == 1


async def test_a_request_under_the_id_of_another_job_is_in_quarantine_and_stops_nobody(ingest: Ingest) -> None:
    wrong = request(7)
    await ingest.objects.create(asked_key("ftjob-other"), wrong.model_dump_json().encode())
    await ingest.objects.create(asked_key("ftjob-null"), b"null")
    asked = await ingest.ask()
    await ingest.requests.make_jobs()
    assert [each.subject for each in ingest.bus.published] == [asked.job_id]
    assert set(await quarantine.read_all(ingest.objects)) == {"job/ftjob-other", "job/ftjob-null"}


async def test_a_store_that_fails_in_between_makes_the_job_wait(ingest: Ingest) -> None:
    asked = await ingest.ask()
    faulty = ingest.objects = FaultyStore(disk=Faults(buckets=ingest.objects.disk.buckets))
    ingest.start()
    faulty.faults["create", job_key(asked.job_id)] = StoreUnavailable("no answer")
    await ingest.requests.make_jobs()
    assert ingest.bus.published == [] and await faulty.list(ASKED)
    faulty.faults.clear()
    await ingest.requests.make_jobs()
    assert [each.subject for each in ingest.bus.published] == [asked.job_id]

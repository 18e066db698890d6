"""A retry that the api has stored becomes a job, once, whatever is away meanwhile."""

from __future__ import annotations

import pytest

from services.ingest.requests import Requests
from shared.errors import ConfigError, StoreRefused
from shared.events import DatasetUploaded, Job, Retry
from shared.retry import Backoff
from shared.stages import outbox, quarantine
from shared.stages.adoption import retry_of
from shared.stages.ledger import RETRIES, job_key, retry_key
from tests.support.data.job_history import T0, JobHistory
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.faults import Faults, FaultyStore
from tests.support.fakes.store import FakeStore
from tests.support.spans import Spans, trace_of, traceparent_of
from tests.support.waiting import until
from tests.unit.ingest.test_guards import running

REQUEST = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"


class Ingest:
    def __init__(self) -> None:
        self.objects, self.bus, self.parent = FakeStore(), FakeBus(), JobHistory()
        self.start()

    def start(self) -> None:
        self.retries = Requests(self.objects, self.bus)

    async def ask(self, rerun: int = 1) -> str:
        asked = Retry(parent_job=self.parent.job_id, from_stage="trainer", rerun=rerun, at=T0 + 60, traceparent=REQUEST)
        job_id = retry_of(self.parent.job, asked, REQUEST).job_id
        await self.objects.create(retry_key(job_id), asked.model_dump_json().encode())
        return job_id

    async def job(self, job_id: str) -> Job:
        found = await self.objects.get(job_key(job_id))
        assert found is not None
        return Job.model_validate_json(found[0])


@pytest.fixture
async def ingest() -> Ingest:
    ingest = Ingest()
    await ingest.parent.write_documents(ingest.objects, until="validate")
    return ingest


async def test_a_retry_is_a_job_with_a_parent_and_a_trace_that_is_linked_to_the_parents(
    ingest: Ingest, spans: Spans
) -> None:
    job_id = await ingest.ask()
    await ingest.retries.make_jobs()

    job, parent = await ingest.job(job_id), ingest.parent.job
    assert (job.origin.parent_job, job.origin.from_stage, job.spec.rerun) == (parent.job_id, "trainer", 1)
    assert (job.dataset, job.base, job.alias, job.created_at) == (parent.dataset, parent.base, parent.alias, T0 + 60)
    assert job.model != parent.model and job.model.endswith(job_id.removeprefix("ftjob-")[:8])
    root = spans.one("job")
    assert (trace_of(root), job.traceparent) == ("c" * 32, traceparent_of(root))
    assert [f"{link.context.trace_id:032x}" for link in root.links] == [parent.traceparent.split("-")[1]]
    [published] = ingest.bus.published
    assert isinstance(published.event, DatasetUploaded)
    assert (published.event.job_id, published.event.origin) == (job_id, job.origin)


async def test_a_retry_is_made_and_announced_once(ingest: Ingest) -> None:
    await ingest.ask()
    for _ in range(2):
        await ingest.retries.make_jobs()
        ingest.start()  # a restart forgets everything
        await ingest.retries.make_jobs()
    assert len(ingest.bus.published) == 1


async def test_without_a_bus_all_retries_are_jobs_and_later_they_are_announced(ingest: Ingest) -> None:
    asked = [await ingest.ask(rerun) for rerun in (1, 2)]
    ingest.bus.available = False
    await ingest.retries.make_jobs()
    for job_id in asked:
        result = await outbox.read(ingest.objects, job_id, "ingest")
        assert result is not None and result.outcome == "completed"
    ingest.bus.available = True
    await ingest.retries.make_jobs()
    assert sorted(published.subject for published in ingest.bus.published) == sorted(asked)


async def test_a_crash_after_any_write_is_made_good_by_the_next_start(ingest: Ingest) -> None:
    job_id = await ingest.ask()
    await ingest.retries.make_jobs()
    made = await ingest.job(job_id)
    for lost in (["published.json"], ["published.json", "result.json"]):
        for name in lost:
            await ingest.objects.delete(f"jobs/{job_id}/ingest/{name}")
        ingest.start()
        await ingest.retries.make_jobs()
        assert await ingest.job(job_id) == made
        assert await outbox.read(ingest.objects, job_id, "ingest") is not None
    assert len({published.ce_id for published in ingest.bus.published}) == 1


@pytest.mark.parametrize("wrong", [b"null", b"{", b'{"parent_job": "../x"}', b"\xff"])
async def test_a_request_that_nobody_understands_does_not_stop_the_others(ingest: Ingest, wrong: bytes) -> None:
    await ingest.objects.create(retry_key("ftjob-a"), wrong)
    job_id = await ingest.ask()
    await ingest.retries.make_jobs()
    assert (await ingest.job(job_id)).origin.parent_job == ingest.parent.job_id


@pytest.mark.parametrize("error", [ConfigError("denied"), StoreRefused("InvalidObjectState", "archived"), ValueError()])
async def test_requests_that_cannot_be_listed_end_no_service(
    ingest: Ingest, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.ingest.requests.FAILED_PAUSES", Backoff(0.01, 0.01))
    await ingest.ask()
    faulty = ingest.objects = FaultyStore(disk=Faults(buckets=ingest.objects.disk.buckets))
    ingest.start()
    faulty.faults["list", RETRIES] = error
    async with running(ingest.retries.run):
        await until(lambda: faulty.calls.count(("list", RETRIES)) >= 2, "it was tried again")
        faulty.faults.clear()
        await until(lambda: ingest.bus.published, "the retry becomes a job")


async def test_a_request_that_is_refused_waits_and_one_that_cannot_be_read_is_in_quarantine(ingest: Ingest) -> None:
    job_id = await ingest.ask()
    faulty = ingest.objects = FaultyStore(disk=Faults(buckets=ingest.objects.disk.buckets))
    ingest.start()
    faulty.add(f"{RETRIES}ftjob-bad.json", b'{"rerun": null}')
    faulty.faults["get", retry_key(job_id)] = ConfigError("denied")
    await ingest.retries.make_jobs()
    assert ingest.bus.published == []
    faulty.faults.clear()
    await ingest.retries.make_jobs()
    assert len(ingest.bus.published) == 1
    [(name, about)] = (await quarantine.read_all(faulty)).items()
    assert (name, about.place) == ("retry/ftjob-bad", f"s3://tunestream/{RETRIES}ftjob-bad.json")

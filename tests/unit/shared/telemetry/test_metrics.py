"""The metrics that all services share: of their stage, of the object store, of HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI

from shared.errors import InputError, StoreUnavailable, TransientError
from shared.events import DatasetPointer, DatasetUploaded, Event, JobFailed, Reference
from shared.http import health
from shared.http.metrics import HttpMetrics
from shared.settings import StageSettings, StoreSettings
from shared.stages import outbox
from shared.stages.ledger import job_key
from shared.stages.runner import StageRunner
from shared.stages.stage import STAGES, Attempt
from shared.store.objects import ObjectStore
from shared.telemetry import metrics
from tests.support.data.jobs import make_job
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.clock import Clock
from tests.support.fakes.servers import refusing_port
from tests.support.fakes.store import FakeStore
from tests.support.scrape import Scrape, scrape
from tests.support.waiting import until

REF = Reference(bucket="b", key="k", etag="e", size=1, sha256="0" * 64)
T0 = 1_000_000.0


class Ledger:
    """A ledger with jobs in it, and the validate stage at work on them."""

    def __init__(self, work: Callable[[Attempt], Awaitable[Event]]) -> None:
        self.clock = Clock(T0)
        self.objects = FakeStore(clock=self.clock)
        self.runner = StageRunner(
            STAGES["validate"],
            work,
            ledger=self.objects,
            bus=FakeBus(),
            owner="test",
            settings=StageSettings(lease_seconds=300, poll_seconds=0.02, discover_seconds=5, max_backoff_seconds=0),
        )
        metrics.watch_stage(
            "validate",
            pending=lambda: self.runner.pending,
            oldest=lambda: self.runner.oldest_pending,
            running=lambda: self.runner.working,
        )

    async def add(self, job_id: str, *, uploaded: bool = True) -> None:
        """Add a job as ingest leaves it. If not `uploaded`, its validation has not been requested yet."""
        job = make_job(job_id=job_id, created_at=T0)
        await self.objects.create(job_key(job_id), job.model_dump_json().encode())
        if uploaded:
            event = DatasetUploaded(job_id=job_id, dataset=DatasetPointer(bucket="datasets", key="k"))
            await outbox.commit(
                self.objects, outbox.result_of(job_id, "ingest", 1, "test", "completed", event, self.clock())
            )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.runner.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, name: str, value: float, **labels: str) -> Scrape:
        async def there() -> bool:
            return (await scrape()).value(name, stage="validate", **labels) == value

        await until(there, f"{name} is {value}")
        return await scrape()


async def test_pending_is_what_the_ledger_says_was_asked_for_and_has_no_result() -> None:
    may_end = asyncio.Event()

    async def work(attempt: Attempt) -> Event:
        await may_end.wait()
        return JobFailed(job_id=attempt.job.job_id, stage="validate", code="c", message="m")

    ledger = Ledger(work)
    await ledger.add("ftjob-1")
    await ledger.add("ftjob-2")
    await ledger.add("ftjob-not-asked", uploaded=False)
    async with ledger.running():
        await ledger.until("tunestream_stage_running", 1)
        before = await ledger.until("tunestream_stage_pending", 2)
        ledger.clock.now += 60
        aged = await scrape()
        may_end.set()
        after = await ledger.until("tunestream_stage_pending", 0)

    assert before.value("tunestream_stage_running", stage="validate") == 1  # one slot: the other waits
    assert aged.value("tunestream_stage_oldest_pending_seconds", stage="validate") == 60
    assert after.value("tunestream_stage_oldest_pending_seconds", stage="validate") == 0


async def test_a_service_that_starts_anew_sees_since_when_a_job_waits() -> None:
    async def work(attempt: Attempt) -> Event:
        await asyncio.Event().wait()
        raise AssertionError

    ledger = Ledger(work)
    await ledger.add("ftjob-1")
    async with ledger.running():
        await ledger.until("tunestream_stage_running", 1)
    ledger.clock.now += 3600
    again = Ledger(work)
    again.objects.disk, again.clock.now = ledger.objects.disk, ledger.clock.now
    async with again.running():
        seen = await again.until("tunestream_stage_running", 1)

    assert seen.value("tunestream_stage_oldest_pending_seconds", stage="validate") == 3600


async def test_attempts_retries_results_and_durations_are_counted_by_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[Exception] = [TransientError("away"), KeyError("bug"), InputError("invalid_training_file", "Line 1")]

    async def work(attempt: Attempt) -> Event:
        ledger.clock.now += 100
        raise failures.pop(0)

    ledger = Ledger(work)
    monkeypatch.setattr("shared.stages.attempts._monotonic", ledger.clock)
    before = await scrape()
    await ledger.add("ftjob-1")
    async with ledger.running():
        done = before.value("tunestream_stage_results_total", stage="validate", outcome="failed") + 1
        after = await ledger.until("tunestream_stage_results_total", done, outcome="failed")

    def grown(name: str, **labels: str) -> float:
        return after.value(name, stage="validate", **labels) - before.value(name, stage="validate", **labels)

    assert grown("tunestream_stage_attempts_total") == 3
    assert grown("tunestream_stage_retries_total", reason="transient") == 1
    assert grown("tunestream_stage_retries_total", reason="bug") == 1
    assert grown("tunestream_stage_seconds_count", outcome="failed") == 1
    assert grown("tunestream_stage_seconds_sum", outcome="failed") == 100
    assert grown("tunestream_stage_seconds_bucket", outcome="failed", le="60.0") == 0
    assert grown("tunestream_stage_seconds_bucket", outcome="failed", le="300.0") == 1


async def test_counters_of_a_stage_are_there_before_anything_happened() -> None:
    metrics.watch_stage("evaluator", pending=lambda: 0, oldest=lambda: 0, running=lambda: 0)
    seen = await scrape()
    for outcome in ("completed", "failed", "cancelled"):
        assert seen.has("tunestream_stage_results_total", stage="evaluator", outcome=outcome)
    for reason in ("transient", "bug", "lease_lost"):
        assert seen.has("tunestream_stage_retries_total", stage="evaluator", reason=reason)


async def test_a_store_that_is_away_is_counted_by_operation() -> None:
    with refusing_port() as port:
        store = ObjectStore.connect(StoreSettings(endpoint=f"http://127.0.0.1:{port}"))
        before = await scrape()
        with pytest.raises(StoreUnavailable):
            await store.list("jobs/")
    after = await scrape()

    for name in ("tunestream_store_errors_total", "tunestream_store_seconds_count"):
        assert after.value(name, operation="list") - before.value(name, operation="list") == 1


async def test_http_requests_are_counted_by_the_template_of_their_route() -> None:
    app = FastAPI()
    health.mount_metrics(app)
    app.add_middleware(HttpMetrics)

    @app.get("/jobs/{job_id}")
    async def job(job_id: str) -> dict[str, str]:
        if job_id == "broken":
            raise RuntimeError(job_id)
        return {}

    before = await scrape(app)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service.test") as client:
        for path in ("/jobs/canary-1", "/jobs/canary-2", "/jobs/broken", "/canary-3"):
            await client.get(path)
        await client.request("CANARY-4", "/jobs/x")
    after = await scrape(app)

    def grown(method: str, route: str, status: str) -> float:
        labels = {"method": method, "route": route, "status": status}
        name = "tunestream_http_requests_total"
        return after.value(name, **labels) - before.value(name, **labels)

    assert grown("GET", "/jobs/{job_id}", "200") == 2
    assert grown("GET", "/jobs/{job_id}", "500") == 1
    assert grown("GET", "other", "404") == 1
    seen = str(after.labels("tunestream_http_requests_total")).lower()
    assert "canary" not in seen
    assert after.value("tunestream_http_seconds_count", method="GET", route="/jobs/{job_id}") >= 3


async def test_jobs_that_wait_and_results_that_are_not_published_are_measured_on_every_scrape() -> None:
    jobs: dict[str, int] = {}
    unpublished = 0
    metrics.watch_stage(
        "trainer",
        pending=lambda: 0,
        oldest=lambda: 0,
        running=lambda: 0,
        waiting=lambda: jobs,
        unpublished=lambda: unpublished,
    )
    before = await scrape()
    jobs, unpublished = {"configuration": 2}, 3
    after = await scrape()

    for cause, value in (("transient", 0), ("configuration", 2)):
        assert before.value("tunestream_stage_waiting", stage="trainer", cause=cause) == 0
        assert after.value("tunestream_stage_waiting", stage="trainer", cause=cause) == value
    assert (before.value("tunestream_outbox_waiting"), after.value("tunestream_outbox_waiting")) == (0, 3)

"""One trace per job: the parents of its spans, even while the job runs and after an attempt has died."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest
from opentelemetry.trace import StatusCode

from shared import telemetry
from shared.errors import InputError
from shared.events import DatasetUploaded, Event, Job
from shared.settings import StageSettings
from shared.stages import pending
from shared.stages.ledger import stage_prefix
from shared.stages.runner import StageRunner
from shared.stages.stage import STAGES, Attempt
from tests.support.data.trained_models import add_job
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.store import FakeStore
from tests.support.spans import Spans, parent_id, trace_of, traceparent_of
from tests.support.waiting import until

STRANGER = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"
JOB = {"tunestream.job_id": "ftjob-1"}

Work = Callable[[Attempt], Awaitable[Event]]


def test_a_job_has_a_root_span_above_all_others(spans: Spans) -> None:
    root = telemetry.JobRoot(None)
    root.emit("ftjob-1")
    with telemetry.span("ingest", root.traceparent):
        pass

    job = spans.one("job")
    assert job.parent is None
    assert traceparent_of(job) == root.traceparent
    assert spans.below(job) == ["ingest"]


def test_the_trace_of_a_strangers_event_continues_in_the_job(spans: Spans) -> None:
    telemetry.JobRoot(STRANGER).emit("ftjob-1")

    job = spans.one("job")
    assert trace_of(job) == telemetry.trace_id(STRANGER)
    assert spans.below(STRANGER) == ["job"]


def test_a_root_whose_manifest_was_there_already_is_never_seen(spans: Spans) -> None:
    telemetry.JobRoot(STRANGER)
    assert spans.all == ()


def test_without_an_exporter_a_job_has_a_trace_all_the_same() -> None:
    assert telemetry.JobRoot(STRANGER).traceparent == STRANGER
    made = telemetry.JobRoot("nonsense").traceparent
    assert telemetry.valid_traceparent(made) == made


def test_phases_have_a_parent_span_before_their_attempt_ends(spans: Spans) -> None:
    root = telemetry.JobRoot(None)
    job = Job.model_construct(job_id="ftjob-1", traceparent=root.traceparent)
    with contextlib.ExitStack() as attempt:
        attempt.enter_context(telemetry.job_span(job, "trainer", 2))
        with telemetry.span("trainer.download"):
            pass
        started, phase = spans.one("trainer.started"), spans.one("trainer.download")
        assert [span.name for span in spans.all] == ["trainer.started", "trainer.download"]
    assert spans.below(root.traceparent) == ["trainer.started"]
    assert spans.below(started) == ["trainer", "trainer.download"]
    for span in (started, phase, spans.one("trainer")):
        assert dict(span.attributes or {}) == JOB | {"tunestream.attempt": 2}
    assert spans.one("trainer").end_time > phase.end_time
    root.emit("ftjob-1")
    lengths = [span.end_time - span.start_time for span in (spans.one("job"), started, phase)]
    assert 0 < lengths[0] < lengths[1] < lengths[2]  # else Jaeger warns of clocks that are wrong


def test_of_an_exception_a_span_holds_the_class_and_not_the_message(spans: Spans) -> None:
    with pytest.raises(ValueError), telemetry.span("phase"):
        raise ValueError("the row says hunter2")

    status = spans.one("phase").status
    assert (status.status_code, status.description) == (StatusCode.ERROR, "ValueError")


def test_what_is_unrecorded_still_belongs_to_the_trace(spans: Spans) -> None:
    with telemetry.span("variant") as variant, telemetry.unrecorded():
        child = telemetry.begin("request")
        telemetry.end(child)
    assert child.get_span_context().trace_id == variant.get_span_context().trace_id
    assert [span.name for span in spans.all] == ["variant"]


# --- through the stage protocol -----------------------------------------------------------------------------------


def runner(objects: FakeStore, work: Work, owner: str) -> StageRunner:
    settings = StageSettings(poll_seconds=0.01, discover_seconds=0.01)
    return StageRunner(
        STAGES["validate"],
        work,
        ledger=objects,
        bus=FakeBus(),
        owner=owner,
        settings=settings,
        span=telemetry.job_span,
    )


async def asked(objects: FakeStore) -> Job:
    """A store with a job whose validation was requested."""
    job = await add_job(objects)
    request = DatasetUploaded.model_validate({"job_id": job.job_id, "dataset": {"bucket": "datasets", "key": "k"}})
    await objects.create(stage_prefix(job.job_id, "validate") + "request.json", request.model_dump_json().encode())
    await pending.add(objects, "validate", job.job_id, 0.0)
    return job


async def test_a_stage_that_is_resumed_elsewhere_continues_the_trace(spans: Spans) -> None:
    objects = FakeStore()
    job = await asked(objects)
    working = asyncio.Event()

    async def dies(attempt: Attempt) -> Event:
        with telemetry.span("validate.download"):
            working.set()
            await asyncio.Event().wait()
        raise AssertionError

    async def fails(attempt: Attempt) -> Event:
        with telemetry.span("validate.check"):
            raise InputError("bad", "secret", None)

    first = asyncio.create_task(runner(objects, dies, "first").run())
    await working.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asyncio.create_task(runner(objects, fails, "second").run())
    await until(lambda: spans.named("publish job.failed"), "the failure is published")
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)

    attempts = spans.named("validate.started")
    assert [(span.attributes or {})["tunestream.attempt"] for span in attempts] == [1, 2]
    assert spans.below(job.traceparent) == ["validate.started", "validate.started", "publish job.failed"]
    assert [spans.below(attempt) for attempt in attempts] == [
        ["validate", "validate.download"],
        ["validate", "validate.check"],
    ]
    assert {trace_of(span) for span in spans.all} == {telemetry.trace_id(job.traceparent)}
    died, failed = spans.named("validate")
    assert (died.status.description, failed.status.description) == ("CancelledError", "failed")
    assert parent_id(attempts[0]) != parent_id(attempts[1])

"""The outbox of a stage: `result.json` decides, and its event is published until `published.json` exists."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from opentelemetry.trace import SpanKind

from shared import ids, telemetry
from shared.errors import AlreadyExists, StoreUnavailable
from shared.events import Event, EventRecord, Job, JobFailed, StageName, StageOutcome, StageResult
from shared.retry import Backoff, retry
from shared.stages.ledger import Ledger, job_key, stage_prefix
from shared.stages.publisher import Publisher

log = logging.getLogger(__name__)

PAUSES = Backoff(0.2, 30.0)  # between two tries at writing a result while the store is away


def result_of(
    job_id: str, stage: StageName, attempt: int, owner: str, outcome: StageOutcome, event: Event, now: float
) -> StageResult:
    """The result of one attempt, with its event and the event's id. `now`: seconds since the epoch."""
    # a job fails once, so its job.failed has the same id in every stage; other events belong to their stage
    source = "" if isinstance(event, JobFailed) else stage
    return StageResult(
        job_id=job_id,
        stage=stage,
        attempt=attempt,
        owner=owner,
        outcome=outcome,
        event=EventRecord.of(event, ids.event_id(job_id, event.topic, source)),
        finished_at=now,
    )


async def commit(ledger: Ledger, mine: StageResult) -> StageResult:
    """Decide the stage. The attempt that creates `result.json` first decides it; every other attempt gets that result.

    Retries until the store answers, because hours of work must not be lost to a short outage. The runner cancels this
    when its lease has run out; then another attempt repeats the work.
    """

    async def decide() -> StageResult:
        try:
            await ledger.create(stage_prefix(mine.job_id, mine.stage) + "result.json", mine.model_dump_json().encode())
            return mine
        except AlreadyExists:
            found = await read(ledger, mine.job_id, mine.stage)
            assert found is not None, "results are never deleted"
            return found

    return await retry(decide, on=StoreUnavailable, pauses=PAUSES)


async def read(ledger: Ledger, job_id: str, stage: StageName) -> StageResult | None:
    """The result of a stage; None if it has none yet."""
    found = await ledger.get(stage_prefix(job_id, stage) + "result.json")
    return StageResult.model_validate_json(found[0]) if found else None


async def publish(ledger: Ledger, bus: Publisher, result: StageResult, owner: str, clock: Callable[[], float]) -> None:
    """Publish the event of a result. Its id is the same in every process; if this one dies halfway, a later look at
    the job publishes the event again."""
    found = await ledger.get(job_key(result.job_id))
    traceparent = Job.model_validate_json(found[0]).traceparent if found else None
    about = {"tunestream.job_id": result.job_id, "messaging.destination.name": result.event.topic}
    with telemetry.span(f"publish {result.event.topic}", traceparent, kind=SpanKind.PRODUCER, attributes=about):
        await bus.publish(result.event.event(), ce_id=result.event.id, subject=result.job_id, traceparent=traceparent)
    with contextlib.suppress(AlreadyExists):
        stamp = ids.canonical({"at": clock(), "by": owner})
        await ledger.create(stage_prefix(result.job_id, result.stage) + "published.json", stamp)
    log.info("stage finished", extra={"job_id": result.job_id, "stage": result.stage, "outcome": result.outcome})

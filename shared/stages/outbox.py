"""The results of stages, and the outbox that sends their events. See docs/architecture.md, "The stage protocol".

`result.json` decides a stage. It is also a row of the outbox: its event is published until `published.json` exists.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from opentelemetry.trace import SpanKind
from pydantic import ValidationError

from shared import ids, telemetry
from shared.errors import AlreadyExists, ConfigError, EventRefused, StoreRefused, StoreUnavailable, TransientError
from shared.events import Event, EventRecord, Job, JobFailed, JobProgress, StageName, StageOutcome, StageResult
from shared.retry import Backoff, retry
from shared.stages import pending
from shared.stages.ledger import Ledger, job_key, published_key, result_key
from shared.stages.publisher import Publisher
from shared.tasks import wait_for_event

log = logging.getLogger(__name__)

COMMIT_PAUSES = Backoff(0.2, 2.0)
"""Between two tries at writing a result while the store is away. They are short, so that after an outage the result is
there before anybody takes over the claim."""
PUBLISH_PAUSES = Backoff(0.5, 15.0)
"""Between two tries at publishing a result while the bus or the store is away."""
MOST_PROGRESS = 1000
"""Events of progress that wait for the bus; the oldest beyond that are dropped."""


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
    """Decide the stage, and enter the job at the next one. The attempt that creates `result.json` first decides the
    stage; every other attempt gets that result.

    Retries until the store answers, because hours of work must not be lost to an outage. No lease is needed: only the
    first result counts.
    """

    async def decide() -> StageResult:
        try:
            await ledger.create(result_key(mine.job_id, mine.stage), mine.model_dump_json().encode())
            return mine
        except AlreadyExists:
            found = await read(ledger, mine.job_id, mine.stage)
            assert found is not None, "results are never deleted"
            return found

    result = await retry(decide, on=StoreUnavailable, pauses=COMMIT_PAUSES)
    await retry(lambda: pending.add_next(ledger, result), on=StoreUnavailable, pauses=COMMIT_PAUSES)
    return result


async def read(ledger: Ledger, job_id: str, stage: StageName) -> StageResult | None:
    """The result of a stage; None if it has none yet."""
    found = await ledger.get(result_key(job_id, stage))
    return StageResult.model_validate_json(found[0]) if found else None


async def publish(ledger: Ledger, bus: Publisher, result: StageResult, owner: str) -> None:
    """Publish the event of a result. Its id is the same in every process; if this one dies halfway, another publishes
    the event again.

    Raises:
        TransientError: the bus or the store is away.
    """
    found = await ledger.get(job_key(result.job_id))
    traceparent = Job.model_validate_json(found[0]).traceparent if found else None
    about = {"tunestream.job_id": result.job_id, "messaging.destination.name": result.event.topic}
    stamp = {"by": owner}
    try:
        with telemetry.span(f"publish {result.event.topic}", traceparent, kind=SpanKind.PRODUCER, attributes=about):
            event = result.event.event()
            await bus.publish(event, ce_id=result.event.id, subject=result.job_id, traceparent=traceparent)
    except (EventRefused, ValidationError) as error:
        # the services find the result in the ledger; programs outside do not learn of it
        log.error("an event cannot be published", extra={"job_id": result.job_id, "reason": type(error).__name__})
        stamp["refused"] = type(error).__name__
    with contextlib.suppress(AlreadyExists):
        at = {"at": ledger.now()}
        await ledger.create(published_key(result.job_id, result.stage), ids.canonical(stamp | at))
    log.info("stage finished", extra={"job_id": result.job_id, "stage": result.stage, "outcome": result.outcome})


@dataclass(frozen=True)
class _Progress:
    event: JobProgress
    ce_id: str
    traceparent: str | None


class Outbox:
    """Sends the events of one service in order, beside its work: results until the bus has them, progress as long as
    the bus takes it. Neither the work nor its slot waits for the bus."""

    def __init__(
        self,
        ledger: Ledger,
        bus: Publisher,
        owner: str,
        sent: Callable[[StageResult], Awaitable[None]] | None = None,
    ) -> None:
        """`sent` is awaited after each result whose event is published."""
        self._sent = sent
        self._ledger = ledger
        self._bus = bus
        self._owner = owner
        self._events: deque[StageResult | _Progress] = deque()
        self._results: set[tuple[str, StageName]] = set()
        """The job and the stage of each result that waits."""
        self._bell = asyncio.Event()
        self._failures = 0
        """How often publishing failed in a row."""

    def result(self, result: StageResult) -> None:
        """Publish the event of a committed result."""
        about = (result.job_id, result.stage)
        if about not in self._results:
            self._results.add(about)
            self._events.append(result)
            self._bell.set()

    def progress(self, event: JobProgress, *, ce_id: str, traceparent: str | None) -> None:
        """Publish progress, unless the bus is away."""
        if self._failures or len(self._events) - len(self._results) >= MOST_PROGRESS:
            return
        self._events.append(_Progress(event, ce_id, traceparent))
        self._bell.set()

    def holds(self, job_id: str, stage: StageName) -> bool:
        """Whether the event of a result waits here."""
        return (job_id, stage) in self._results

    @property
    def waiting(self) -> int:
        """Results that are committed but not published."""
        return len(self._results)

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await wait_for_event(self._bell, 3600)
            self._bell.clear()
            while self._events:
                if not await self._send(self._events[0]):
                    await asyncio.sleep(PUBLISH_PAUSES.jittered(self._failures))

    async def _send(self, item: StageResult | _Progress) -> bool:
        """Send the first of the events. Whether the next one may follow."""
        try:
            if isinstance(item, _Progress):
                event = item.event
                await self._bus.publish(event, ce_id=item.ce_id, subject=event.job_id, traceparent=item.traceparent)
            else:
                await publish(self._ledger, self._bus, item, self._owner)
                if self._sent is not None:
                    await self._sent(item)
        except (TransientError, ConfigError) as error:  # a rotated key is mended, and nobody looks at the job again
            self._failures += 1
            if self._failures == 1:
                log.warning("events wait for the bus", extra={"reason": type(error).__name__})
            self._drop_progress()
            self._events.rotate(-1)  # what is refused on one topic must not hold up the others
            return False
        except EventRefused:
            log.warning("progress cannot be published", extra={"reason": "EventRefused"})
        except StoreRefused as error:
            log.error("an event is not published", extra={"reason": str(error)})
        except Exception:
            log.exception("an event is not published")
        self._failures = 0
        self._events.popleft()
        if isinstance(item, StageResult):
            self._results.discard((item.job_id, item.stage))
        return True

    def _drop_progress(self) -> None:
        self._events = deque(item for item in self._events if isinstance(item, StageResult))

"""Cancels a job. The request is written to the ledger, where it cannot get lost, and published on the bus, which is
faster."""

from __future__ import annotations

import contextlib
import logging

from services.api.domain.state import JobState
from shared import ids
from shared.errors import AlreadyExists, TransientError
from shared.events import JobControl
from shared.stages.ledger import Ledger, control_prefix
from shared.stages.publisher import Publisher

log = logging.getLogger(__name__)


async def cancel(job: JobState, ledger: Ledger, bus: Publisher, now: float) -> None:
    """Ask for the job to end. There is one cancellation per job, so asking again changes nothing.

    Raises:
        StoreUnavailable: the request may not have been written.
    """
    with contextlib.suppress(AlreadyExists):
        await ledger.create(f"{control_prefix(job.job_id)}cancel-1.json", ids.canonical({"at": now, "by": "api"}))
    try:
        await bus.publish(
            JobControl(job_id=job.job_id, action="cancel"),
            ce_id=ids.event_id(job.job_id, JobControl.topic, "cancel", 1),
            subject=job.job_id,
            traceparent=job.manifest.traceparent if job.manifest else None,
        )
    except TransientError:  # the owner of the job also reads the ledger whenever it renews its lease
        log.warning("the cancellation could not be published", extra={"job_id": job.job_id})

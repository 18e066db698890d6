"""How a failed attempt goes on, by its cause: the job waits, is tried again, or ends. See docs/architecture.md, "The
stage protocol"."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from shared.errors import ConfigError, LeaseLost, StoreRefused, TransientError
from shared.events import JobFailed, StageName
from shared.retry import Backoff
from shared.stages.lease import Lease

log = logging.getLogger(__name__)

FIRST_PAUSE = 1.0  # seconds
LONGEST_REASON = 300  # characters of the line that says what a job waits for

_NOT_GIVEN_BACK = (LeaseLost, TransientError, ConfigError, StoreRefused, TimeoutError)
"""A claim that is not given back expires by itself."""

Cause = Literal["transient", "configuration"]
"""What a job waits for: something outside that is unavailable, or a setting that an operator has to mend."""


@dataclass(frozen=True)
class Wait:
    """What a job waits for, in one line, since when (seconds since the epoch), and for how many seconds until the next
    try. `failures`: how many attempts in a row have failed so."""

    cause: Cause
    reason: str
    since: float
    seconds: float
    failures: int


def wait_for(error: TransientError | ConfigError, lease: Lease, lasted: float, longest: float) -> Wait:
    """How the job goes on after `error`, which ended an attempt that `lasted` so many seconds; a try follows after
    `longest` seconds at most."""
    reason = " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
    before = lease.previous
    # an attempt that got far has ended the wait before it; the words of one cause may differ from try to try
    goes_on = before is not None and before.waiting_for is not None and lasted < longest
    since = before.waiting_since if before and goes_on else None
    count = lease.claim.failures + 1
    return Wait(
        cause="configuration" if isinstance(error, ConfigError) else "transient",
        reason=reason,
        since=lease.ledger.now() if since is None else since,
        seconds=pause(count, longest),
        failures=count,
    )


def pause(failures: int, longest: float) -> float:
    """Seconds until the next try after `failures` failures."""
    return Backoff(FIRST_PAUSE, longest).jittered(failures)


async def give_back(lease: Lease, seconds: float, **update: Any) -> None:
    """Give the claim back, for at most `seconds`, also while the service stops: the counts in it must not be lost. A
    claim that cannot be given back expires by itself."""

    async def give() -> None:
        with contextlib.suppress(*_NOT_GIVEN_BACK):
            async with asyncio.timeout(seconds):
                await lease.give_back(**update)

    giving = asyncio.ensure_future(give())
    try:
        await asyncio.shield(giving)
    except asyncio.CancelledError:
        await giving
        raise


async def give_back_taken(taking: asyncio.Future[Lease | None], seconds: float) -> None:
    """Give back a claim that was taken, or will be in a moment, within `seconds`."""
    with contextlib.suppress(*_NOT_GIVEN_BACK):
        async with asyncio.timeout(seconds):
            lease = await taking
            if lease and not lease.claim.given_back:
                await lease.give_back()


def bug(job_id: str, stage: StageName, bugs: int, error: Exception) -> JobFailed:
    """The end of a job after `bugs` unexpected exceptions."""
    if isinstance(error, StoreRefused):
        return JobFailed(job_id=job_id, stage=stage, code="store_refused", message=str(error))
    message = f"{stage} failed {bugs} times with {type(error).__name__}; look for {job_id} in its log."
    return JobFailed(job_id=job_id, stage=stage, code="internal_error", message=message)


def killer(job_id: str, stage: StageName, deaths: int) -> JobFailed:
    """The end of a job whose process died too often."""
    message = (
        f"The process of {stage} died {deaths} times while it worked on this job, perhaps for want of memory; look for "
        f"{job_id} in its log."
    )
    return JobFailed(job_id=job_id, stage=stage, code="too_many_attempts", message=message)


def unreadable_job(job_id: str, stage: StageName, error: ValidationError) -> JobFailed:
    """The end of a job whose manifest cannot be read."""
    problem = error.errors(include_url=False, include_input=False)[0]
    param = ".".join(str(part) for part in problem["loc"]) or None
    message = f"The manifest of the job cannot be read: {param}: {problem['msg']}. Make the job again."
    return JobFailed(job_id=job_id, stage=stage, code="unreadable_job", message=message, param=param)


def tell(what: str, error: Exception, stage: StageName, job_id: str | None = None) -> None:
    """Log a failure of the runner, after which it goes on. What no bug explains has no trace."""
    about = {"job_id": job_id, "stage": stage, "reason": str(error) or type(error).__name__}
    if isinstance(error, (LeaseLost, TransientError)):
        log.warning(what, extra=about)
    elif isinstance(error, ConfigError):
        log.error(what, extra=about)
    else:
        log.error(what, exc_info=error, extra=about | {"reason": type(error).__name__})

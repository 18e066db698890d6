"""A ledger in memory with jobs at all stages, and a janitor over it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from services.api.janitor.janitor import Janitor
from services.api.janitor.sweep import Sweep
from services.api.janitor.tombstones import Tombstones
from shared import ids
from shared.events import STAGE_NAMES, Deployed, Deployment, EventRecord, Retry, StageResult, Tombstone
from shared.events.limits import DEFAULT_PROJECT
from shared.settings import RetentionSettings
from shared.stages.ledger import (
    attempt_prefix,
    deployment_key,
    job_key,
    published_key,
    result_key,
    retry_key,
    tombstone_key,
)
from tests.support.fakes.clock import Clock
from tests.support.fakes.faults import FaultyStore

DAY = 86_400.0
T0 = 1_700_000_000.0


async def certain() -> None:
    """The lease of a test without one."""


async def nothing_settled(job_id: str) -> bool:
    return False


def job_id(number: int) -> str:
    return f"ftjob-{ids.derive('janitor', number)}"


def record(data: dict[str, Any]) -> EventRecord:
    return EventRecord(topic="training.completed", type="t", id="e", data=data)


def result(
    job: str, stage: str, outcome: str = "completed", attempt: int = 1, at: float = T0, **data: Any
) -> StageResult:
    about = {"job_id": job, "stage": stage, "attempt": attempt, "owner": "test", "outcome": outcome, "finished_at": at}
    return StageResult.model_validate(about | {"event": record(data)})


def folder(prefix: str) -> dict[str, Any]:
    """A reference of a folder, as events have it."""
    return {
        "bucket": "tunestream",
        "prefix": prefix,
        "manifest": {"bucket": "tunestream", "key": f"{prefix}manifest.json"},
    }


class World:
    """The store that outlives the janitor, and one process of it."""

    def __init__(self) -> None:
        self.clock = Clock(T0)
        self.store = FaultyStore(clock=self.clock)
        self.settled: set[str] = set()
        self.retention = RetentionSettings()
        self.start()

    def start(self) -> None:
        async def settled(job: str) -> bool:
            return job in self.settled

        self.tombstones = Tombstones(self.store)
        self.sweeper = Sweep(self.store, self.retention, datasets="datasets", seconds=21_600.0, settled=settled)

    def janitor(self, owner: str = "one", **more: Any) -> Janitor:
        about: dict[str, Any] = {"owner": owner, "user": "'janitor'", "seconds": 0.01, "lease_seconds": 3.0, **more}
        return Janitor(self.store, Tombstones(self.store), self.sweeper, **about)

    async def sweep(self, **retention: Any) -> None:
        """Sweep now, by another policy if there is one."""
        if retention:
            self.retention = RetentionSettings.model_validate(retention)
        self.start()
        self.clock.now += 21_600.0
        await self.sweeper.run_if_due(certain)

    def days(self, days: float) -> None:
        self.clock.now += days * DAY

    # --- what others have written ---------------------------------------------------------------------------------

    def job(self, number: int, *results: StageResult, unpublished: Sequence[str] = ()) -> str:
        """A job with these results."""
        job = job_id(number)
        self.store.add(job_key(job), b"{}")
        for each in results:
            self.store.add(result_key(job, each.stage), each.model_dump_json().encode())
            if each.stage not in unpublished:
                self.store.add(published_key(job, each.stage), b"{}")
        return job

    def ended(self, number: int, *, trained: dict[str, Any] | None = None, attempt: int = 1) -> str:
        """A job that has gone through all stages by now."""
        job, now = job_id(number), self.clock.now
        data = {"trainer": trained or {}}
        return self.job(number, *(result(job, s, attempt=attempt, at=now, **data.get(s, {})) for s in STAGE_NAMES))

    def failed(self, number: int, stage: str = "trainer", attempt: int = 2) -> str:
        """A job that failed in `stage`, just now."""
        job, now = job_id(number), self.clock.now
        before = STAGE_NAMES[: STAGE_NAMES.index(stage)]  # type: ignore[arg-type]
        last = result(job, stage, "failed", attempt, now)
        return self.job(number, *(result(job, each, at=now) for each in before), last)

    def attempt(self, job: str, stage: str, number: int, *names: str) -> list[str]:
        """Objects that an attempt has written. Returns their keys."""
        keys = [attempt_prefix(job, stage, number) + name for name in names]
        for key in keys:
            self.store.add(key, b"12345")
        return keys

    def retry(self, parent: str, child: str, stage: str = "trainer") -> None:
        wish = Retry.model_validate(
            {"parent_job": parent, "from_stage": stage, "rerun": 1, "at": self.clock.now, "traceparent": ""}
        )
        self.store.add(retry_key(child), wish.model_dump_json().encode())

    def deploy(self, alias: str, *jobs: str, project: str = DEFAULT_PROJECT) -> None:
        versions = [Deployed(model=f"ft:{job}", job_id=job, at=T0) for job in jobs]
        deployment = Deployment(alias=alias, current=versions[0], history=tuple(versions))
        self.store.add(deployment_key(alias, project), deployment.model_dump_json().encode())

    def bury(self, prefix: str, kind: str = "checkpoints", name: str = "one") -> str:
        stone = Tombstone(prefix=prefix, reason="superseded", at=self.clock.now)
        self.store.add(tombstone_key(kind, name), stone.model_dump_json().encode())
        return tombstone_key(kind, name)

    # --- what is there --------------------------------------------------------------------------------------------

    def there(self, *keys: str) -> list[str]:
        return [key for key in keys if key in self.store.held]

    def pending(self) -> list[str]:
        return sorted(key for key in self.store.held if key.startswith("pending/"))

    async def quiet(self) -> None:
        """Let the other tasks run."""
        await asyncio.sleep(0)

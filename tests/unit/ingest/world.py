"""Ingest in memory: a store whose calls can fail, a bus that can be away, and a process that can be started again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from services.ingest.announcer import Announcer
from services.ingest.deduplicator import Deduplicator
from services.ingest.inbox import Inbox
from services.ingest.intake import Intake
from services.ingest.notifications import BucketNotifications
from services.ingest.preparation import Mine, Preparation
from services.ingest.sources.limits import Limits
from services.ingest.sources.mine import mine
from services.ingest.sources.report import MiningReport
from services.ingest.sweep import Sweep
from shared.drops import sidecars_of
from shared.events import DatasetPointer, DatasetUploaded, JobFailed, Quarantined, Source
from shared.kafka.bus import Delivery
from shared.settings import IngestSettings, ModelSettings, Settings
from shared.stages import quarantine
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.faults import FaultyStore

ROWS = b'{"messages": []}\n'


class World:
    """One process of ingest, and the store and the bus that outlive it. `wait` lets time pass for it."""

    def __init__(self) -> None:
        self.store_time = 1_000_000.0
        self.time = 0.0
        self.store = FaultyStore(clock=lambda: self.store_time)
        self.datasets = self.store.at("datasets")
        self.bus = FakeBus()
        self.mine: Mine = mine_here
        self.patience = 60.0
        self.start()

    def start(self) -> None:
        """Start another process; what the last one had in memory is lost."""
        settings = Settings(_env_file=None, model=ModelSettings(id="acme/tiny"))
        self.announcer = Announcer(self.store, self.bus)
        self.preparation = Preparation(self.store, settings.ingest, self.mine)
        intake = Intake(self.store, self.announcer, settings, self.preparation)
        self.deduplicator = Deduplicator(
            self.store, intake, self.announcer, "datasets", lambda: self.time, self.patience
        )
        self.sweeps = Sweep(
            self.datasets, self.deduplicator, IngestSettings(sweep_seconds=0.2, settle_seconds=1.0), lambda: self.time
        )
        self.inbox = Inbox(self.store, intake, self.deduplicator)
        self.notifications = BucketNotifications(self.datasets, self.deduplicator)

    def drop(self, *keys: str, data: bytes = ROWS, job: bytes | None = None) -> None:
        for key in keys:
            if job is not None:
                self.datasets.add(sidecars_of(key)[0], job)
            self.datasets.add(key, data)

    def wait(self, seconds: float) -> None:
        self.time += seconds
        self.store_time += seconds

    async def sweep(self, times: int = 1, *, apart: float = 2.0) -> None:
        for _ in range(times):
            self.wait(apart)
            await self.sweeps.sweep()

    async def announce(self, name: str, **event: Any) -> None:
        await self.inbox.announced(DatasetUploaded(**event), Delivery("dataset.uploaded", name, "stranger", None))

    # --- what others see --------------------------------------------------------------------------------------

    def uploaded(self) -> list[str]:
        """The keys of the datasets whose jobs were announced, in order."""
        return [event.dataset.key for event in self.bus.events(DatasetUploaded) if isinstance(event, DatasetUploaded)]

    def failed(self) -> list[JobFailed]:
        return [event for event in self.bus.events(JobFailed) if isinstance(event, JobFailed)]

    async def quarantined(self) -> list[Quarantined]:
        return list((await quarantine.read_all(self.store)).values())

    def manifests(self) -> list[dict[str, Any]]:
        return [json.loads(held.data) for key, held in self.store.held.items() if key.endswith("/job.json")]

    def reads(self, key: str) -> int:
        """How often a dataset was read."""
        return self.store.calls.count(("describe", key))


async def mine_here(
    path: Path, out: Path, *, name: str, source: Source | None, limits: Limits, **_: Any
) -> MiningReport:
    """Mine a file in this process, without the second that another takes to start."""
    return mine(path, out, name=name, source=source, limits=limits)


def at(key: str, bucket: str = "datasets") -> DatasetPointer:
    return DatasetPointer(bucket=bucket, key=key)

"""An event may name a place that the service may not read. Only that event is affected."""

from __future__ import annotations

import time

from services.ingest.deduplicator import Deduplicator
from services.ingest.inbox import Inbox
from services.ingest.intake import Intake
from shared.errors import ConfigError
from shared.events import DatasetPointer, DatasetUploaded, JobFailed
from shared.kafka.bus import Delivery
from shared.settings import Settings
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.store import FakeStore

SECRET = DatasetPointer(bucket="tunestream", key="secret.jsonl")
ROWS = DatasetPointer(bucket="datasets", key="rows.jsonl")
OTHER = DatasetPointer(bucket="datasets", key="other.jsonl")


class GuardedStore(FakeStore):
    async def before(self, operation: str, key: str) -> None:
        if (operation, key) == ("describe", SECRET.key):
            raise ConfigError("the object store refuses this service")
        await super().before(operation, key)


async def test_an_event_that_names_a_forbidden_place_stops_neither_the_service_nor_other_jobs() -> None:
    objects, bus = GuardedStore(), FakeBus()
    intake = Intake(objects, bus, Settings(), lambda: 1.0)
    inbox = Inbox(objects, intake, Deduplicator(objects, intake, "datasets", time.time))
    await objects.put(SECRET.key, b"{}")
    for pointer in (ROWS, OTHER):
        await objects.at("datasets").put(pointer.key, b"{}")
    asked = (
        DatasetUploaded(dataset=SECRET),
        DatasetUploaded(dataset=ROWS, validation_file=SECRET),
        DatasetUploaded(dataset=OTHER),
    )
    for number, event in enumerate(asked):
        await inbox.announced(event, Delivery("dataset.uploaded", f"id-{number}", "stranger", None))
    await inbox.make_jobs()
    (uploaded,), (failed,) = bus.events(DatasetUploaded), bus.events(JobFailed)
    assert isinstance(uploaded, DatasetUploaded) and uploaded.dataset.key == OTHER.key
    assert isinstance(failed, JobFailed)
    assert (failed.code, failed.param) == ("invalid_validation_file", "validation_file")

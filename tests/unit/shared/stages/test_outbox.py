"""The outbox sends what was decided, whatever is in its way for now."""

from __future__ import annotations

import asyncio

import pytest

from shared.errors import ConfigError, TransientError
from shared.events import DatasetPointer, DatasetUploaded, Event
from shared.retry import Backoff
from shared.stages import outbox
from shared.stages.outbox import Outbox, result_of
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.store import FakeStore


@pytest.mark.parametrize("cause", [TransientError("away"), ConfigError("the key was rotated")])
async def test_a_result_is_published_once_the_cause_is_mended(
    cause: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BrokenBus(FakeBus):
        tries = 0

        async def before(self, event: Event) -> None:
            self.tries += 1
            if self.tries < 4:
                raise cause

    monkeypatch.setattr(outbox, "PUBLISH_PAUSES", Backoff(0.0, 0.0))
    store, bus = FakeStore(), BrokenBus()
    box = Outbox(store, bus, "me")
    sending = asyncio.create_task(box.run())
    event = DatasetUploaded(job_id="ftjob-1", dataset=DatasetPointer(bucket="datasets", key="k"))
    box.result(result_of("ftjob-1", "ingest", 1, "me", "completed", event, 0.0))
    async with asyncio.timeout(5):
        while box.waiting:
            await asyncio.sleep(0)
    sending.cancel()
    assert [message.event for message in bus.published] == [event]
    assert "jobs/ftjob-1/ingest/published.json" in store.held

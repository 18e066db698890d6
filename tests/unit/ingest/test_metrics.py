"""What a scrape sees of ingest."""

from __future__ import annotations

from services.ingest.announcer import Announcer
from services.ingest.deduplicator import Deduplicator
from services.ingest.intake import Intake
from services.ingest.sweep import Sweep
from shared.settings import IngestSettings, Settings
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.store import FakeStore
from tests.support.scrape import scrape


async def test_a_drop_is_counted_with_the_time_until_its_event() -> None:
    now = [1_000_000.0]
    objects = FakeStore(clock=lambda: now[0])
    store = objects
    announcer = Announcer(store, FakeBus())
    deduplicator = Deduplicator(store, Intake(store, announcer, Settings(_env_file=None)), announcer, "datasets")
    sweep = Sweep(store.at("datasets"), deduplicator, IngestSettings())
    await objects.at("datasets").put("canary.jsonl", b"{}\n")
    before = await scrape()
    now[0] += 3
    await sweep.sweep()
    await sweep.sweep()
    grown = (await scrape()).since(before)

    assert grown("tunestream_ingest_taken_total", kind="drop", outcome="job") == 1
    assert grown("tunestream_ingest_seconds_count") == 1
    assert grown("tunestream_ingest_seconds_sum") == 3

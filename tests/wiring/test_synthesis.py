"""Synthesis with the real store and broker: a spec that is dropped ends as an ordinary job."""

from __future__ import annotations

import asyncio
import uuid

import yaml

from services.ingest.app import build
from shared.events import DatasetPointer, SynthesisProgress, SynthesisRequested
from shared.kafka.bus import Bus, Delivery
from shared.service import Context
from shared.settings import SynthesisSettings
from tests.support.data.drops import Bucket, listen_for_uploads
from tests.support.embedded import Embedded
from tests.support.fakes.language_model import FakeModel, serve
from tests.support.waiting import until
from tests.unit.ingest.synthesis.world import spec, writer


async def test_a_spec_that_is_dropped_and_announced_becomes_one_job_with_the_datasets_own_sidecar(
    parts: Embedded,
) -> None:
    model, folder = FakeModel({"strong": writer}), f"{uuid.uuid4().hex}/"
    told: list[SynthesisProgress] = []

    async def tell(event: SynthesisProgress, delivery: Delivery) -> None:
        told.append(event)

    async with serve(model) as url, listen_for_uploads(parts.settings.bus) as uploads:
        synthesis = SynthesisSettings.model_validate({"keys": {f"{url}/v1": None}})
        ingest = parts.settings.ingest.model_copy(update={"sweep_seconds": 0.2, "settle_seconds": 0.1})
        settings = parts.settings.model_copy(update={"synthesis": synthesis, "ingest": ingest})
        bus = Bus(settings.bus, f"ingest-{uuid.uuid4().hex[:6]}")
        bus.subscribe(SynthesisProgress, tell)
        tasks = [asyncio.ensure_future(task()) for task in build(Context(settings, parts.objects, bus)).background]
        await bus.start()
        try:
            bucket = Bucket(parts.objects._client)
            values = spec(url, count=5).model_dump(mode="json", exclude_defaults=True)
            await bucket.put(f"{folder}support.job.yaml", b"suffix: made\n")
            await bucket.put(f"{folder}support.synthesis.yaml", yaml.safe_dump(values).encode())
            asked = SynthesisRequested(spec=DatasetPointer(bucket="datasets", key=f"{folder}support.synthesis.yaml"))
            await bus.publish(asked, ce_id=f"request-{folder}")
            await until(lambda: uploads.events(f"{folder}support.jsonl"), "the dataset becomes a job", 60.0)
            await until(lambda: [event.state for event in told][-1:] == ["completed"], "the end is told")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await bus.stop()
    [event] = uploads.events(f"{folder}support.jsonl")
    assert event.spec is not None
    assert event.spec.suffix == "made"
    assert len(model.requests) == 15
    [completed] = [event for event in told if event.state == "completed"]
    assert (completed.made, completed.dataset) == (5, DatasetPointer(bucket="datasets", key=f"{folder}support.jsonl"))

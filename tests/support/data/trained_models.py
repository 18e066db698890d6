"""Writes jobs, adapters and trained models to a ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shared import ids
from shared.events import CheckpointInfo, FolderReference, Job
from shared.stages import outbox
from shared.stages.ledger import job_key
from tests.support.data.jobs import make_job, make_training
from tests.support.fakes.store import FakeStore

BASE = "acme/tiny-base"
LORA = {"peft_type": "LORA", "r": 16, "bias": "none", "lora_alpha": 32, "init_lora_weights": True}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def job_id(name: str) -> str:
    """The id of the job named `name`; the same name always gives the same id."""
    return f"ftjob-{ids.derive(name)}"


def model_id(job: str, suffix: str = "support") -> str:
    return ids.model_id(job, BASE, "tunestream", suffix)


async def add_adapter(
    objects: FakeStore, prefix: str, *, config: dict[str, Any] | None = None, files: dict[str, bytes] | None = None
) -> FolderReference:
    """Upload an adapter below `prefix`. `files` replaces its two usual files."""
    contents = files or {
        "adapter_config.json": json.dumps(LORA | (config or {})).encode(),
        "adapter_model.safetensors": prefix.encode(),
        "README.md": b"what it is",
    }
    listed = {name: (await objects.put(prefix + name, data)).model_dump() for name, data in contents.items()}
    manifest = await objects.put(f"{prefix}manifest.json", json.dumps({"files": listed}).encode())
    return FolderReference(bucket=objects.bucket, prefix=prefix, manifest=manifest)


async def add_trained(
    objects: FakeStore,
    name: str = "one",
    *,
    base: str = BASE,
    config: dict[str, Any] | None = None,
    files: dict[str, bytes] | None = None,
    checkpoint: int | None = None,
    finished_at: float = 1000.0,
    adapter: FolderReference | None = None,
) -> str:
    """Write the result of a training by the job named `name`. Returns the id of the model."""
    job = job_id(name)
    prefix = f"jobs/{job}/trainer/attempt-1/"
    checkpoints: tuple[CheckpointInfo, ...] = ()
    if checkpoint is not None:
        folder = await add_adapter(objects, f"{prefix}checkpoints/step-{checkpoint}/", config=config)
        checkpoints = (CheckpointInfo(step=checkpoint, prefix=folder.prefix),)
    event = make_training(
        job_id=job,
        model=model_id(job),
        base=base,
        adapter=adapter or await add_adapter(objects, f"{prefix}adapter/", config=config, files=files),
        rank=16,
        checkpoints=checkpoints,
    )
    await outbox.commit(objects, outbox.result_of(job, "trainer", 1, "test", "completed", event, finished_at))
    return event.model


async def add_job(objects: FakeStore, name: str = "one", alias: str = "support", **fields: Any) -> Job:
    """Write the manifest of the job named `name`, if it is not there yet."""
    job = job_id(name)
    usual = {"job_id": job, "base": BASE, "model": model_id(job), "alias": alias, "traceparent": TRACEPARENT}
    manifest = make_job(**usual | fields)
    if await objects.get(job_key(job)) is None:
        await objects.create(job_key(job), manifest.model_dump_json().encode())
    return manifest


async def upload_real_adapter(objects: FakeStore, name: str, folder: Path) -> FolderReference:
    """Upload an adapter that a real training has left in a folder."""
    return await objects.upload_folder(f"jobs/{job_id(name)}/trainer/attempt-1/adapter", folder)

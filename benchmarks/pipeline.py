"""Measures the overhead of the pipeline: `python -m benchmarks.pipeline`, on the stack that the environment names.

    eval "$(tunestream env)"              # the embedded stack
    source deploy/secrets/client.env      # the full stack

1. From a drop in the bucket to its `dataset.uploaded` in Kafka. Baseline: a client that lists the bucket every second,
   as a sensor of a workflow engine does at its quickest.
2. A whole job from its drop to `model.deployed`, without the time that its stages worked. Baseline: as many bare hops
   through the same broker, produced and consumed by aiokafka.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from shared.kafka.security import client_options
from shared.settings import load_settings

BUCKET = "datasets"
POLL_SECONDS = 1.0
UNREAD = "inference.logged"
HOPS = ("dataset.uploaded", "dataset.validated", "training.completed", "eval.completed", "model.deployed")
JOB = """
hyperparameters: {n_epochs: 1, batch_size: 8}
evaluation: {max_examples: 4, few_shot: 1, max_tokens: 16}
gate: {promote: always}
suffix: benchmark
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drops", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.25, help="seconds between two drops")
    parser.add_argument("--rows", type=Path, default=Path("examples/support.jsonl"))
    parser.add_argument("--skip-job", action="store_true", help="measure the drops only")
    options = parser.parse_args()
    asyncio.run(measure(options))


async def measure(options: argparse.Namespace) -> None:
    print(f"stack: S3 {os.environ['AWS_ENDPOINT_URL']}, Kafka {os.environ['TUNESTREAM_KAFKA']}")
    ours, baseline = await drops(options.drops, options.pause)
    print(f"drop -> dataset.uploaded, {len(ours)} drops: {_spread(ours)}")
    print(f"baseline, a listing every {POLL_SECONDS:.0f} s:       {_spread(baseline)}")
    print(f"ratio of the p95: {_p95(baseline) / _p95(ours):.1f} times quicker\n")
    if options.skip_job:
        return
    total, worked = await job(options.rows)
    hops = await bare_hops()
    overhead = total - sum(worked.values())
    told = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in worked.items())
    print(f"drop -> model.deployed: {total:.2f} s, of which stages worked {sum(worked.values()):.2f} s ({told})")
    print(f"overhead of all stages: {overhead:.2f} s")
    print(f"baseline, {len(HOPS)} bare hops through the broker: {hops:.3f} s")
    print(f"ratio: {overhead / hops:.1f} times the bare hops, for durable results, leases and a ledger")


# --- drops --------------------------------------------------------------------------------------------------------


async def drops(count: int, pause: float) -> tuple[list[float], list[float]]:
    """Drop `count` files, each with a twin. Returns the seconds from each drop to its event, and from the put of each
    twin until a polling client sees it."""
    s3, prefix = boto3.client("s3"), f"_benchmark/{uuid.uuid4().hex[:8]}"
    # ingest ignores folders that begin with `_`, so the baseline watches copies that make no jobs
    dropped: dict[str, float] = {}
    polled: dict[str, float] = {}
    seen: dict[str, float] = {}
    heard: dict[str, float] = {}
    async with events("dataset.uploaded") as consumer:
        listening = asyncio.create_task(_hear(consumer, dropped, heard, count))
        polling = asyncio.create_task(_poll(s3, prefix, polled, seen, count))
        for number in range(count):
            body = json.dumps({"benchmark": f"{prefix} {number}"}).encode()
            key, twin = f"benchmark-{uuid.uuid4().hex}.jsonl", f"{prefix}/{number}.jsonl"
            dropped[key] = time.time()
            await asyncio.to_thread(s3.put_object, Bucket=BUCKET, Key=key, Body=body)
            polled[twin] = time.time()
            await asyncio.to_thread(s3.put_object, Bucket=BUCKET, Key=twin, Body=body)
            await asyncio.sleep(pause)
        async with asyncio.timeout(120):
            await asyncio.gather(listening, polling)
    return [heard[key] - dropped[key] for key in dropped], [seen[key] - polled[key] for key in polled]


async def _hear(consumer: AIOKafkaConsumer, dropped: Mapping[str, float], heard: dict[str, float], count: int) -> None:
    async for record in consumer:
        key = json.loads(record.value)["dataset"]["key"]
        if key in dropped:
            heard.setdefault(key, time.time())
        if len(heard) == count:
            return


async def _poll(s3: Any, prefix: str, polled: Mapping[str, float], seen: dict[str, float], count: int) -> None:
    while len(seen) < count:
        pages = await asyncio.to_thread(_listing, s3, prefix)
        for key in pages:
            if key in polled:
                seen.setdefault(key, time.time())
        await asyncio.sleep(POLL_SECONDS)


def _listing(s3: Any, prefix: str) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


# --- a whole job ----------------------------------------------------------------------------------------------------


async def job(rows: Path) -> tuple[float, dict[str, float]]:
    """Run one small job. Returns the seconds from the drop to `model.deployed`, and the seconds of work by stage."""
    s3, name = boto3.client("s3"), f"benchmark-{uuid.uuid4().hex[:8]}"
    lines = rows.read_bytes().splitlines(keepends=True)[:40]
    async with events("model.deployed") as consumer:
        s3.put_object(Bucket=BUCKET, Key=f"{name}.job.yaml", Body=JOB.encode())
        began = time.time()
        s3.put_object(Bucket=BUCKET, Key=f"{name}.jsonl", Body=b"".join(lines))
        found: dict[str, Any] = {}
        async with asyncio.timeout(900):
            async for record in consumer:
                found = _job_of(f"{name}.jsonl")
                if found and found["id"] == json.loads(record.value)["job_id"]:
                    break
        total = record.timestamp / 1000 - began
    stages = {stage: state for stage, state in found["stages"].items() if state["started_at"]}
    return total, {stage: state["finished_at"] - state["started_at"] for stage, state in stages.items()}


def _job_of(key: str) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    jobs = httpx.get(f"{os.environ['TUNESTREAM_API_URL']}/jobs?limit=100", headers=headers, timeout=30).json()["data"]
    return next((job for job in jobs if job["dataset"]["key"] == key and job["stages"]["inference"]["finished_at"]), {})


async def bare_hops() -> float:
    """The median time of five messages in seconds, each sent when the one before has arrived, through a topic that no
    service reads."""
    options = _kafka()
    times: list[float] = []
    async with events(UNREAD) as consumer:
        producer = AIOKafkaProducer(**options, acks="all")
        await producer.start()
        try:
            for _ in range(20):
                began = time.perf_counter()
                for _ in HOPS:
                    mark = uuid.uuid4().hex.encode()
                    await producer.send_and_wait(UNREAD, b"{}", key=mark)
                    async for record in consumer:
                        if record.key == mark:
                            break
                times.append(time.perf_counter() - began)
        finally:
            await producer.stop()
    return statistics.median(times)


# --- Kafka ----------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def events(topic: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of all messages that are published to `topic` from now on."""
    consumer = AIOKafkaConsumer(topic, **_kafka(), fetch_max_wait_ms=50, auto_offset_reset="latest")
    await consumer.start()
    try:
        await consumer.seek_to_end()
        for partition in consumer.assignment():
            await consumer.position(partition)
        yield consumer
    finally:
        await consumer.stop()


def _kafka() -> dict[str, Any]:
    """How aiokafka connects as the operator, from the variables that our own command reads."""
    return {"bootstrap_servers": os.environ["TUNESTREAM_KAFKA"], **client_options(load_settings().bus)}


def _p95(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=20)[-1]


def _spread(seconds: list[float]) -> str:
    middle, slow = statistics.median(seconds) * 1000, _p95(seconds) * 1000
    return f"p50 {middle:.0f} ms, p95 {slow:.0f} ms, slowest {max(seconds) * 1000:.0f} ms"


if __name__ == "__main__":
    main()

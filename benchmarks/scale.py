"""Measures what finished and queued jobs cost: `python -m benchmarks.scale`. It starts an object store of its own, the
embedded one (SeaweedFS), and fills it.

1. The calls to the store in a minute in which nothing happens, of the runners of four stages, of ingest and of the api,
   beside `--finished` jobs that have ended.
2. The time from the start of a stage, with no memory of what was before, to the first attempt at a new job.
3. The calls in a minute for `--queued` jobs that wait for one slot, in all stages together.

Baseline: the tree of an older commit, with this file in it: `git worktree add OLD COMMIT`, copy this file to
`OLD/benchmarks/`, run it there. A commit before the index of open work looked at all jobs that there ever were.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import httpx
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from shared.events import Event, StageName
from shared.settings import StageSettings
from shared.stages import outbox
from shared.stages.ledger import job_key, stage_prefix
from shared.stages.runner import StageRunner
from shared.stages.stage import STAGES, Attempt
from shared.store.objects import ObjectStore
from tests.support.data.job_history import JobHistory
from tests.support.embedded import Embedded, embedded
from tests.support.fakes.bus import FakeBus

WRITERS = 24
SERVICES = ("ingest", "api")
COUNTED = "tunestream_store_seconds_count"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--finished", type=int, default=10_000)
    parser.add_argument("--queued", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long calls are counted")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, embedded(Path(folder), "weed", "tansu") as parts:
        asyncio.run(measure(parts, options))


async def measure(parts: Embedded, options: argparse.Namespace) -> None:
    per_minute = 60 / options.seconds
    began = time.monotonic()
    await fill(parts.objects, options.finished)
    print(f"{options.finished} finished jobs written in {time.monotonic() - began:.0f} s")
    async with AsyncExitStack() as services:
        addresses = {name: services.enter_context(service(parts, name)) for name in SERVICES}
        await asyncio.gather(*(_quiet(address) for address in addresses.values()))
        async with stages(parts, seconds=0.0):
            await asyncio.sleep(options.seconds / 2)  # what a start costs is measured below
            before = await _calls_of(addresses)
            await asyncio.sleep(options.seconds)
            after = await _calls_of(addresses)
    idle = {name: _grown(before[name], after[name]) for name in after}
    for name, calls in idle.items():
        told = ", ".join(f"{operation} {count * per_minute:.0f}" for operation, count in sorted(calls.items()))
        print(f"idle, {name}: {calls.total() * per_minute:.0f} calls a minute ({told or 'none'})")
    print(f"idle, together: {sum(calls.total() for calls in idle.values()) * per_minute:.0f} calls a minute")

    await ask(parts.objects, options.finished, 1)
    started = time.monotonic()
    async with stages(parts, seconds=0.0) as began_at:
        while not began_at:
            await asyncio.sleep(0.01)
    print(f"restart to the first attempt at a new job: {began_at[0] - started:.2f} s")

    await ask(parts.objects, options.finished + 1, options.queued)
    async with stages(parts, seconds=3600.0):
        await asyncio.sleep(options.seconds / 2)
        first = _own_calls()
        await asyncio.sleep(options.seconds)
        calls = _grown(first, _own_calls())
    told = ", ".join(f"{operation} {count * per_minute:.0f}" for operation, count in sorted(calls.items()))
    total = calls.total() * per_minute
    print(f"{options.queued} queued jobs: {total:.0f} calls a minute, {total / options.queued:.1f} for each ({told})")


# --- jobs ---------------------------------------------------------------------------------------------------------


async def fill(objects: ObjectStore, count: int) -> None:
    """Write jobs that have ended: what their stages leave in the ledger."""
    numbers = iter(range(count))

    async def write() -> None:
        for number in numbers:
            history = JobHistory(number)
            for key, data in documents(history).items():
                await objects.put(key, data)

    async with asyncio.TaskGroup() as group:
        for _ in range(WRITERS):
            group.create_task(write())


def documents(history: JobHistory) -> dict[str, bytes]:
    events: dict[StageName, Event] = {
        "ingest": history.uploaded,
        "validate": history.validated,
        "trainer": history.trained,
        "evaluator": history.evaluated,
        "inference": history.ended,
    }
    found = {job_key(history.job_id): history.job.model_dump_json().encode()}
    for stage, event in events.items():
        prefix = stage_prefix(history.job_id, stage)
        result = outbox.result_of(history.job_id, stage, 1, "benchmark", "completed", event, history.created_at)
        found[prefix + "result.json"] = result.model_dump_json().encode()
        found[prefix + "published.json"] = b"{}"
        if stage in STAGES:
            found[prefix + "request.json"] = found[prefix + "claim.json"] = b"{}"
    return found


async def ask(objects: ObjectStore, first: int, count: int) -> None:
    """What ingest does with `count` datasets. Kafka says nothing of them."""
    for number in range(first, first + count):
        history = JobHistory(number)
        job = history.job.model_copy(update={"created_at": objects.now()})
        await objects.create(job_key(job.job_id), job.model_dump_json().encode())
        event, now = history.uploaded, objects.now()
        await outbox.commit(objects, outbox.result_of(job.job_id, "ingest", 1, "i", "completed", event, now))


# --- services -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def stages(parts: Embedded, *, seconds: float) -> AsyncIterator[list[float]]:
    """The runners of all stages in this process, with one slot each. Yields when their attempts began (monotonic).
    `seconds`: how long the work takes."""
    began: list[float] = []
    objects = parts.objects

    async def work(attempt: Attempt) -> Event:
        began.append(time.monotonic())
        await asyncio.sleep(seconds)
        history = JobHistory()
        return {"validate": history.validated, "trainer": history.trained, "evaluator": history.evaluated}.get(
            attempt.stage, history.ended
        )

    runners = [
        StageRunner(
            stage,
            work,
            ledger=objects,
            bus=FakeBus(),
            leases=objects.for_leases(),
            owner=f"benchmark-{name}",
            settings=StageSettings(),
        )
        for name, stage in STAGES.items()
    ]
    tasks = [asyncio.create_task(runner.run()) for runner in runners]
    try:
        yield began
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def service(parts: Embedded, name: str) -> Iterator[str]:
    """A process of a service. Yields the address of its metrics."""
    stack, store, bus = parts.stack, parts.settings.store, parts.settings.bus
    port = stack.ports[name]
    environment = {
        "TUNESTREAM_STORE__ENDPOINT": store.endpoint,
        "TUNESTREAM_STORE__ACCESS_KEY": store.access_key,
        "TUNESTREAM_STORE__SECRET_KEY": store.secret_key.get_secret_value(),
        "TUNESTREAM_BUS__BOOTSTRAP": bus.bootstrap,
        "TUNESTREAM_BUS__IDEMPOTENT": "false",
        "TUNESTREAM_HEALTH__PORT": str(port),
        "TUNESTREAM_API__PORT": str(port + 7),
        "TUNESTREAM_API__DATABASE": str(stack.state / "api.sqlite3"),
    }
    log = (stack.logs / f"{name}.log").open("ab")
    command = [sys.executable, "-m", f"services.{name}"]
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
    log.close()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


async def _quiet(address: str, seconds: float = 10.0) -> None:
    """Wait until a service is up and has read what it reads at its start."""
    last, since = 0, time.monotonic()
    while time.monotonic() - since < seconds:
        try:
            now = (await _scrape(address)).total()
        except httpx.TransportError:
            now = last + 1000
        if now - last > 10:
            last, since = now, time.monotonic()
        await asyncio.sleep(0.5)


async def _calls_of(addresses: dict[str, str]) -> dict[str, Counter[str]]:
    return {"stages": _own_calls()} | {name: await _scrape(address) for name, address in addresses.items()}


async def _scrape(address: str) -> Counter[str]:
    """The calls of a service until now. Older versions of the api answer at its public port only."""
    url = httpx.URL(address)
    async with httpx.AsyncClient(timeout=60) as client:
        try:
            answer = await client.get(url.join("/metrics"))
        except httpx.ConnectError:
            answer = await client.get(url.copy_with(port=(url.port or 0) + 7).join("/metrics"))
    return _counted(text_string_to_metric_families(answer.text))


def _own_calls() -> Counter[str]:
    return _counted(REGISTRY.collect())


def _counted(families: object) -> Counter[str]:
    """Calls by operation."""
    counted: Counter[str] = Counter()
    for family in families:  # type: ignore[attr-defined]
        for sample in family.samples:
            if sample.name == COUNTED:
                counted[sample.labels["operation"]] += int(sample.value)
    return counted


def _grown(before: Counter[str], after: Counter[str]) -> Counter[str]:
    return Counter(
        {operation: count - before[operation] for operation, count in after.items() if count > before[operation]}
    )


if __name__ == "__main__":
    main()

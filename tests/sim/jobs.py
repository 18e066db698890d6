"""The jobs of a simulation: who drops them, what is wrong with them, and what the work of each stage does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from services.inference.domain import deployments
from shared import ids
from shared.errors import AlreadyExists, ConfigError, Conflict, InputError, StoreUnavailable, TransientError
from shared.events import (
    DatasetValidated,
    Deployed,
    Deployment,
    EvalCompleted,
    Event,
    Interval,
    Job,
    ModelDeployed,
    Split,
    StageName,
)
from shared.retry import Backoff, retry
from shared.stages.ledger import deployment_key
from shared.stages.stage import STAGES, Attempt
from tests.sim.faults import Faults
from tests.sim.network import SimulatedLedger
from tests.sim.processes import Process
from tests.support.data.jobs import NOWHERE, make_job, make_training

if TYPE_CHECKING:
    from tests.sim.world import World

ARRIVALS = 20.0
"""Seconds within which all jobs are dropped."""


@dataclass(frozen=True)
class Plan:
    """One job, and what happens to it."""

    job: Job
    arrives: float
    trouble: str = "none"
    """One of the faults per job, or `none`."""
    stage: StageName = "validate"
    """Where the trouble is."""
    cancelled_after: float | None = None
    """Seconds after it was dropped."""
    pauses: tuple[tuple[float, float | None], ...] = ()
    """When it is paused, in seconds after it was dropped, and for how many seconds; None: until it is cancelled."""


def a_job(number: int) -> Job:
    return make_job(
        job_id=f"ftjob-{ids.derive(number)}",
        model=f"ft:base:org::{number}",
        traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
    )


def plan(number: int, rng: random.Random, faults: Faults) -> Plan:
    """Draw one job."""
    trouble = "none"
    for name in ("bad_data", "flaky", "buggy", "broken_cause", "killer"):
        if rng.random() < getattr(faults, name):
            trouble = name
    planned = Plan(
        a_job(number),
        rng.uniform(0, ARRIVALS),
        trouble,
        "validate" if trouble == "bad_data" else rng.choice(list(STAGES)),
        rng.uniform(0, 90) if rng.random() < faults.cancelled else None,
    )
    return replace(planned, pauses=_pauses(rng, planned)) if rng.random() < faults.rested else planned


def _pauses(rng: random.Random, planned: Plan) -> tuple[tuple[float, float | None], ...]:
    pauses: list[tuple[float, float | None]] = []
    begin = rng.uniform(0, 60)
    for _ in range(rng.choice([1, 1, 2, 3])):
        length = rng.uniform(0, 3) if rng.random() < 0.3 else rng.uniform(5, 60)
        pauses.append((begin, length))
        begin += length + rng.uniform(0, 30)
    if planned.cancelled_after is not None and rng.random() < 0.5:
        return (*pauses[:-1], (pauses[-1][0], None))
    return tuple(pauses)


async def work(world: World, process: Process, attempt: Attempt, plan: Plan) -> Event:
    """What one attempt does: files of its own, progress, and in the last stage the move of the alias. One of the
    trainer that is stopped keeps what it has reached, if anybody wants that."""
    ledger = SimulatedLedger(world, process)
    try:
        return await _work(world, process, attempt, plan, ledger)
    except asyncio.CancelledError:
        if attempt.stage == "trainer":
            world.watch.stopping(process, attempt)
            if not attempt.abandoned:
                await asyncio.sleep(world.random.uniform(0, 40))
                await _through_outages(lambda: ledger.create(f"{attempt.prefix}checkpoint", process.name.encode()))
        raise


async def _work(world: World, process: Process, attempt: Attempt, plan: Plan, ledger: SimulatedLedger) -> Event:
    rng = world.random
    for prefix in attempt.earlier[:1]:  # a checkpoint, which the janitor may have deleted
        await _through_outages(partial(ledger.get, f"{prefix}artifact"))
    if (plan.stage, plan.trouble) == (attempt.stage, "broken_cause") and world.troubled:
        raise rng.choice([ConfigError("a wrong setting"), TransientError("for now")])
    # some attempts last for longer than a lease and a takeover
    await asyncio.sleep(rng.uniform(10, 25) if rng.random() < 0.1 else rng.uniform(0.1, 8))
    await _through_outages(lambda: ledger.create(f"{attempt.prefix}artifact", process.name.encode()))
    await attempt.progress(message="half way")
    if plan.stage == attempt.stage:
        _meet(plan, world, process)
        await asyncio.sleep(0)  # a process that was killed stops here
    await asyncio.sleep(rng.uniform(10, 40) if rng.random() < 0.3 else rng.uniform(0.1, 8))
    if attempt.stage == "inference":
        await _through_outages(lambda: _promote(world, process, attempt, plan, ledger))
    # every attempt finds something else, so that two results cannot be mistaken for one
    return _event(attempt, finding=rng.random())


async def _through_outages(call: Callable[[], Awaitable[Any]]) -> None:
    await retry(call, on=StoreUnavailable, pauses=Backoff(0.5, 2.0))


def _meet(plan: Plan, world: World, process: Process) -> None:
    rng = world.random
    match plan.trouble:
        case "bad_data":
            raise InputError("invalid_training_file", "Line 1 is bad", "training_file")
        case "buggy":
            raise RuntimeError("a bug")
        case "killer":
            world.kill(process)
        case "flaky" if world.troubled and rng.random() < 0.7:
            raise rng.choice([TransientError("for now"), ConfigError("a wrong setting"), RuntimeError("a bug")])


async def _promote(world: World, process: Process, attempt: Attempt, plan: Plan, ledger: SimulatedLedger) -> None:
    """Move the alias as the inference service does: once per job, by compare-and-swap, only when certain, and
    not once the user was faster."""
    job, rng = attempt.job, world.random
    key = deployment_key(job.alias)
    version = Deployed(model=job.model, job_id=job.job_id, at=0.0)
    while True:
        found = await ledger.get(key)
        before = Deployment.model_validate_json(found[0]) if found else None
        after = deployments.promote(before, version, job.alias)
        if after is before:
            return
        await asyncio.sleep(rng.uniform(0, 2))  # others move the alias meanwhile
        await attempt.point_of_no_return()
        world.watch.acts(process, attempt)
        try:
            await _move(ledger, key, after.model_dump_json().encode(), found[1] if found else None)
        except (AlreadyExists, Conflict):
            continue
        if plan.pauses:  # so that one comes while the rest is done, such as the first request
            await asyncio.sleep(rng.uniform(0, 10))
        return


async def _move(ledger: SimulatedLedger, key: str, data: bytes, etag: str | None) -> None:
    if etag is None:
        await ledger.create(key, data)
    else:
        await ledger.replace(key, data, etag)


def _event(attempt: Attempt, finding: float) -> Event:
    job = attempt.job
    match attempt.stage:
        case "validate":
            return DatasetValidated(
                job_id=job.job_id,
                method="supervised",
                format="chat",
                train=Split(reference=NOWHERE, examples=10, tokens=100),
                report=NOWHERE,
                estimated_seconds=finding,
            )
        case "trainer":
            return make_training(job_id=job.job_id, model=job.model, base=job.base, train_loss=finding)
        case "evaluator":
            return EvalCompleted(
                job_id=job.job_id, model=job.model, base=job.base, examples=1, metric="rouge_l",
                scores={"base": {"rouge_l": finding}}, passed=True, reasons=(), report=NOWHERE, html=NOWHERE,
                delta=Interval(mean=1, low=1, high=1, confidence=0.95),
            )  # fmt: skip
        case _:
            return ModelDeployed(job_id=job.job_id, model=job.model, alias=job.alias, endpoint="e", traffic=finding)

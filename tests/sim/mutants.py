"""Mutants of the stage protocol: the real code with one rule taken out of it. The simulation must notice every one."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import pytest

from shared import control, ids
from shared.control import Control
from shared.errors import Cancelled, ConfigError, LeaseLost, Paused, StoreUnavailable, TransientError
from shared.retry import retry
from shared.stages import attempts, failures, lease, outbox, pending, runner
from shared.stages.attempts import AskedJob, Attempts
from shared.stages.lease import Claims, Lease
from shared.stages.ledger import stage_prefix
from shared.stages.runner import StageRunner
from tests.sim import jobs
from tests.sim.loop import here
from tests.sim.network import Limits, SimulatedLedger, UserLedger

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Mutant:
    """`seed`: of a history that has caught it, which is tried before all others: some took hundreds to be caught."""

    name: str
    apply: Callable[[Patch], None]
    seed: int


MUTANTS: list[Mutant] = []


def mutant(name: str, seed: int = 0) -> Callable[[Callable[[Patch], None]], None]:
    return lambda apply: MUTANTS.append(Mutant(name, apply, seed))


async def nothing(*_: Any, **__: Any) -> None: ...


# --- who has the claim --------------------------------------------------------------------------------------------


@mutant("expiry ignored: a claim is taken whoever holds it")
def _(patch: Patch) -> None:
    patch.setattr(Claims, "_is_free", lambda *_: True)


@mutant("no second look: an expired claim is taken at once", seed=6)
def _(patch: Patch) -> None:
    original = Claims.__init__
    patch.setattr(Claims, "__init__", lambda self, ledger, *, grace: original(self, ledger, grace=0.0))


@mutant("no renewal")
def _(patch: Patch) -> None:
    patch.setattr(Lease, "renew", nothing)


@mutant("renewals without the ETag", seed=68)
def _(patch: Patch) -> None:
    async def replace(self: SimulatedLedger, key: str, data: bytes, etag: str) -> str:
        await self.put(key, data)
        return "any"

    async def swap(self: Lease, update: dict[str, Any]) -> None:
        self.claim = self.claim.model_copy(update=update)
        await replace(self.ledger, self.key, self.claim.model_dump_json().encode(), self.etag)  # type: ignore[arg-type]

    patch.setattr(Lease, "_swap", swap)


@mutant("a lease counts longer for its owner than for others", seed=344)
def _(patch: Patch) -> None:
    async def renew(self: Lease) -> None:
        await self._swap({"expires": self.ledger.now() + self.seconds})
        self.certain_until = here().now + 1.5 * self.seconds
        self._renewed.set()

    patch.setattr(Lease, "renew", renew)


@mutant("an attempt has the number of the one before")
def _(patch: Patch) -> None:
    original = lease._succeeding
    patch.setattr(
        lease,
        "_succeeding",
        lambda held, *rest: original(held, *rest).model_copy(update={"attempt": held.attempt}),
    )


@mutant("the result is not looked at after claiming", seed=755)
def _(patch: Patch) -> None:
    blind = types.SimpleNamespace(result_of=outbox.result_of, commit=outbox.commit, read=nothing)
    patch.setattr(attempts, "outbox", blind)


# --- what an owner does when it is lost, or in doubt --------------------------------------------------------------


def _renew(patch: Patch, swallowed: type[Exception], instead: Exception | None = None) -> None:
    original = Lease.renew

    async def renew(self: Lease) -> None:
        try:
            await original(self)
        except swallowed:
            if instead is not None:
                raise instead from None

    patch.setattr(Lease, "renew", renew)


@mutant("a lost claim does not stop the work", seed=78)
def _(patch: Patch) -> None:
    _renew(patch, LeaseLost)


@mutant("a refusal does not stop the work", seed=12)
def _(patch: Patch) -> None:
    _renew(patch, ConfigError, StoreUnavailable("refused"))


@mutant("who is in doubt gives up", seed=13)
def _(patch: Patch) -> None:
    original = Lease.renew

    async def renew(self: Lease) -> None:
        try:
            await original(self)
        except StoreUnavailable:
            if self.in_doubt:
                raise LeaseLost(self.key) from None
            raise

    patch.setattr(Lease, "renew", renew)


@mutant("who is in doubt does what others see", seed=78)
def _(patch: Patch) -> None:
    patch.setattr(Lease, "certain", nothing)


@mutant("a commit needs the lease", seed=33)
def _(patch: Patch) -> None:
    holding: ContextVar[Lease | None] = ContextVar("holding", default=None)
    held, commit = Lease.held, Attempts._commit

    def hold(self: Lease, **more: Any) -> Any:
        holding.set(self)
        return held(self, **more)

    async def committing(self: Attempts, *about: Any) -> Any:
        mine = holding.get()
        task = asyncio.create_task(commit(self, *about))
        while not task.done():
            if mine is not None and mine.in_doubt:
                task.cancel()
                raise LeaseLost(mine.key)
            await asyncio.wait({task}, timeout=1.0)
        return task.result()

    patch.setattr(Lease, "held", hold)
    patch.setattr(Attempts, "_commit", committing)


@mutant("calls of the store have no deadline")
def _(patch: Patch) -> None:
    original = SimulatedLedger.__init__

    def connect(self: SimulatedLedger, world: Any, process: Any, limits: Any = None, owner: str = "") -> None:
        original(self, world, process, Limits(1e9, 1e9), owner)

    patch.setattr(SimulatedLedger, "__init__", connect)


# --- results and events -------------------------------------------------------------------------------------------


@mutant("results are not created once")
def _(patch: Patch) -> None:
    async def create(self: SimulatedLedger, key: str, data: bytes) -> str:
        await self.put(key, data)
        return "any"

    patch.setattr(SimulatedLedger, "create", create)


@mutant("published.json is written before the event is published")
def _(patch: Patch) -> None:
    original = outbox.publish

    async def publish(ledger: Any, bus: Any, result: Any, owner: str) -> None:
        key = stage_prefix(result.job_id, result.stage) + "published.json"
        await ledger.create(key, ids.canonical({"by": owner}))
        await original(ledger, bus, result, owner)

    patch.setattr(outbox, "publish", publish)


@mutant("a slot waits for the bus", seed=6)
def _(patch: Patch) -> None:
    commit = Attempts._commit

    async def committing(self: Attempts, *about: Any) -> Any:
        result = await commit(self, *about)
        box = self._outbox
        await retry(
            lambda: outbox.publish(box._ledger, box._bus, result, box._owner),
            on=TransientError,
            pauses=outbox.PUBLISH_PAUSES,
        )
        return result

    patch.setattr(Attempts, "_commit", committing)


@mutant("an event is tried once", seed=6)
def _(patch: Patch) -> None:
    original = outbox.publish

    async def publish(*about: Any) -> None:
        try:
            await original(*about)
        except TransientError as error:
            raise RuntimeError from error

    patch.setattr(outbox, "publish", publish)


# --- how an attempt goes on ---------------------------------------------------------------------------------------


def _wanted(patch: Patch, change: Callable[[Control], Control]) -> None:
    original = control.read

    async def read(ledger: Any, job_id: str) -> Control:
        wanted = await original(ledger, job_id)
        return wanted if isinstance(ledger, UserLedger) else change(wanted)

    patch.setattr(control, "read", read)


@mutant("cancel ignored", seed=7)
def _(patch: Patch) -> None:
    _wanted(patch, lambda wanted: replace(wanted, cancelled=False))


@mutant("nothing given back", seed=11)
def _(patch: Patch) -> None:
    patch.setattr(failures, "give_back", nothing)


@mutant("deaths not counted", seed=80)
def _(patch: Patch) -> None:
    original = lease._succeeding
    patch.setattr(
        lease, "_succeeding", lambda held, *rest: original(held, *rest).model_copy(update={"deaths": held.deaths})
    )


def _give_back(patch: Patch, forgotten: str) -> None:
    original = failures.give_back

    async def give_back(lease: Lease, seconds: float, **update: Any) -> None:
        update.pop(forgotten, None)
        await original(lease, seconds, **update)

    patch.setattr(failures, "give_back", give_back)


@mutant("bugs not counted", seed=29)
def _(patch: Patch) -> None:
    _give_back(patch, "bugs")


@mutant("what waits for something outside counts as a bug", seed=52)
def _(patch: Patch) -> None:
    async def wait(self: Attempts, attempt: Any, lease: Lease, error: Exception) -> float | None:
        return await self._try_again(attempt, lease, error, 0.0)

    patch.setattr(Attempts, "_wait", wait)


@mutant("back-off ignored", seed=11)
def _(patch: Patch) -> None:
    patch.setattr(failures, "pause", lambda *_: 0.0)


@mutant("other processes do not learn of the back-off", seed=11)
def _(patch: Patch) -> None:
    _give_back(patch, "pause")


@mutant("a waiting job keeps its slot", seed=198)
def _(patch: Patch) -> None:
    original = Attempts._wait

    async def wait(self: Attempts, *about: Any) -> float:
        await asyncio.sleep(await original(self, *about))
        return 0.0

    patch.setattr(Attempts, "_wait", wait)


# --- what rests because its user wants that -----------------------------------------------------------------------


@mutant("pause ignored")
def _(patch: Patch) -> None:
    _wanted(patch, lambda wanted: replace(wanted, pauses={}))


def _blind(patch: Patch, module: Any) -> None:
    """Let a module not see that jobs are paused."""

    async def read(ledger: Any, job_id: str) -> Control:
        return replace(await control.read(ledger, job_id), pauses={})

    patch.setattr(module, "control", types.SimpleNamespace(read=read))


@mutant("pause ignored by who looks for work")
def _(patch: Patch) -> None:
    _blind(patch, runner)


@mutant("pause ignored by who works")
def _(patch: Patch) -> None:
    _blind(patch, attempts)


@mutant("resume ignored")
def _(patch: Patch) -> None:
    _wanted(patch, lambda wanted: replace(wanted, resumes={}))


@mutant("a pause wins over a cancel", seed=7)
def _(patch: Patch) -> None:
    _wanted(patch, lambda wanted: replace(wanted, cancelled=wanted.cancelled and wanted.last in wanted.resumes))


@mutant("who is paused keeps nothing")
def _(patch: Patch) -> None:
    class Lost(Paused, LeaseLost): ...

    class Other(Exception): ...

    patch.setattr(attempts, "Paused", Lost)
    patch.setattr(lease, "Paused", Other)


@mutant("who is paused lets its lease run out", seed=138)
def _(patch: Patch) -> None:
    held, renew = Lease.held, Lease.renew
    paused: set[int] = set()

    def hold(self: Lease, *, bell: Any, check: Any) -> Any:
        async def checking() -> None:
            try:
                await check()
            except Paused:
                paused.add(id(self))
                raise

        paused.discard(id(self))
        return held(self, bell=bell, check=checking)

    async def renewing(self: Lease) -> None:
        if id(self) in paused:
            raise StoreUnavailable("no more")
        await renew(self)

    patch.setattr(Lease, "held", hold)
    patch.setattr(Lease, "renew", renewing)


def _paused_claim(patch: Patch, **wrong: Callable[[Lease], Any]) -> None:
    """Let the claim of a paused job be given back with something wrong; without anything, not at all."""
    original = failures.give_back

    async def give_back(lease: Lease, seconds: float, **update: Any) -> None:
        if not update.get("paused"):
            await original(lease, seconds, **update)
        elif wrong:
            await original(lease, seconds, **update, **{name: value(lease) for name, value in wrong.items()})

    patch.setattr(failures, "give_back", give_back)


@mutant("the claim of a paused job is not given back", seed=119)
def _(patch: Patch) -> None:
    _paused_claim(patch)


@mutant("a pause counts as a bug")
def _(patch: Patch) -> None:
    _paused_claim(patch, bugs=lambda lease: lease.claim.bugs + 1)


@mutant("a pause counts as waiting for something outside")
def _(patch: Patch) -> None:
    _paused_claim(patch, failures=lambda lease: lease.claim.failures + 1)


@mutant("a paused job backs off", seed=18)
def _(patch: Patch) -> None:
    _paused_claim(patch, pause=lambda _: 20.0)


@mutant("a paused job passes its point of no return")
def _(patch: Patch) -> None:
    original = Attempts._describe

    def describe(self: Attempts, asked: AskedJob, lease: Lease) -> Any:
        async def go_on() -> None:
            if not await self._goes_on(asked.job.job_id, True):
                raise Cancelled(asked.job.job_id)

        return replace(original(self, asked, lease), _go_on=go_on)

    patch.setattr(Attempts, "_describe", describe)


@mutant("what cannot be undone is paused", seed=70)
def _(patch: Patch) -> None:
    original = Attempts._obey

    async def obey(self: Attempts, job_id: str) -> None:
        await original(self, job_id)
        if (await control.read(self._ledger, job_id)).paused:
            raise Paused(job_id)

    patch.setattr(Attempts, "_obey", obey)


@mutant("a resumed job is found only if somebody rings", seed=11)
def _(patch: Patch) -> None:
    patch.setattr(StageRunner, "_rest", lambda self, job_id: 3600.0)


@mutant("every pause has the same number")
def _(patch: Patch) -> None:
    original = control._note

    async def note(ledger: Any, job_id: str, action: Any, number: int) -> None:
        await original(ledger, job_id, action, 1)

    patch.setattr(control, "_note", note)


# --- which job is next --------------------------------------------------------------------------------------------


@mutant("unfair: the last that was asked for is first", seed=84)
def _(patch: Patch) -> None:
    class Unfair(AskedJob):
        def __init__(self, job: Any, request: Any, order: tuple[float, float]) -> None:
            super().__init__(job, request, (-order[0], order[1]))

    patch.setattr(runner, "AskedJob", Unfair)


@mutant("discovery off")
def _(patch: Patch) -> None:
    async def discover(self: StageRunner) -> None:
        self._discovering, self._discover_at = None, here().now + 3600

    patch.setattr(StageRunner, "_discover", discover)


@mutant("the next stage is not entered")
def _(patch: Patch) -> None:
    patch.setattr(pending, "add_next", nothing)


@mutant("the next stage is entered only by who commits", seed=10)
def _(patch: Patch) -> None:
    patch.setattr(runner, "pending", types.SimpleNamespace(**{**vars(pending), "add_next": nothing}))


@mutant("the next stage is entered after the event is published")
def _(patch: Patch) -> None:
    original, publish = pending.add_next, outbox.publish

    async def late(ledger: Any, bus: Any, result: Any, owner: str) -> None:
        await publish(ledger, bus, result, owner)
        await original(ledger, result)

    patch.setattr(outbox, "publish", late)
    patch.setattr(pending, "add_next", nothing)


@mutant("an entry is deleted before the event is published")
def _(patch: Patch) -> None:
    commit = Attempts._commit

    async def committing(self: Attempts, job_id: str, *about: Any) -> Any:
        result = await commit(self, job_id, *about)
        if entries := (await pending.read(self._ledger, self._stage.name)).get(job_id):
            await pending.remove(self._ledger, entries.keys)
        return result

    patch.setattr(Attempts, "_commit", committing)


@mutant("entries are never deleted")
def _(patch: Patch) -> None:
    patch.setattr(pending, "remove", nothing)


@mutant("the alias moves without compare-and-swap", seed=32)
def _(patch: Patch) -> None:
    async def move(ledger: SimulatedLedger, key: str, data: bytes, etag: str | None) -> None:
        await ledger.put(key, data)

    patch.setattr(jobs, "_move", move)

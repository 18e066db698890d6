"""The object store and the bus as one process sees them, over a network that fails.

A call is a message that travels. Once it is sent, it arrives whatever becomes of its process; the reply, and the
deadline, belong to the process.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.errors import AlreadyExists, ConfigError, Conflict, StoreUnavailable, TransientError
from shared.events import Event
from shared.stages.ledger import Entry
from tests.sim.loop import here

if TYPE_CHECKING:
    from tests.sim.processes import Process
    from tests.sim.world import World

NETWORK = Context()
"""What belongs to no process."""


@dataclass(frozen=True)
class Limits:
    """How long a client waits, in seconds: for the answer to one request before it sends another, and in all."""

    silence: float
    deadline: float


# as the real clients have them
DOCUMENTS = Limits(5.0, 10.0)
LEASES = Limits(3.0, 5.0)
BUS = Limits(5.0, 5.0)


class Fate(enum.Enum):
    """What becomes of a call."""

    GOOD = enum.auto()
    SLOW = enum.auto()
    REFUSED = enum.auto()
    REPLY_LOST = enum.auto()
    NEVER_ENDS = enum.auto()
    KILLED_BEFORE = enum.auto()
    KILLED_AFTER = enum.auto()
    PAUSED_BEFORE = enum.auto()
    PAUSED_AFTER = enum.auto()


@dataclass(frozen=True)
class Document:
    """One object of the store. `modified` is in seconds, by the store's clock."""

    data: bytes
    etag: str
    modified: float


@dataclass(frozen=True)
class Outage:
    """When a server is away, and whether calls hang until their deadline (`silent`) or fail at once."""

    begin: float
    end: float
    silent: bool
    whom: str = ""
    """Whom it concerns: processes whose name begins like this."""
    what: str = ""
    """What it concerns: keys that end like this."""

    def concerns(self, process: Process) -> bool:
        return self.begin <= here().now < self.end and process.name.startswith(self.whom)


class Disk:
    """What the object store holds. `wrote` is called after every change."""

    def __init__(self, wrote: Callable[[Process, str, bytes], None], deleted: Callable[[str], None]) -> None:
        """`deleted` is called after each deletion with the key."""
        self._deleted = deleted
        self.documents: dict[str, Document] = {}
        self._sorted: list[str] = []
        self._wrote = wrote

    def write(self, process: Process, key: str, data: bytes) -> Document:
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if key not in self.documents:
            insort(self._sorted, key)
        held = self.documents[key] = Document(data, etag, here().now)
        self._wrote(process, key, data)
        return held

    def data(self, key: str) -> bytes | None:
        held = self.documents.get(key)
        return held.data if held else None

    def delete(self, key: str) -> None:
        if self.documents.pop(key, None):
            self._sorted.remove(key)
            self._deleted(key)

    def keys(self, prefix: str) -> list[str]:
        """In order."""
        return self._sorted[bisect_left(self._sorted, prefix) : bisect_left(self._sorted, prefix + "\uffff")]


class _Connection:
    """Calls of one process to one server."""

    def __init__(self, world: World, process: Process, limits: Limits, outages: list[Outage]) -> None:
        self._world = world
        self._process = process
        self._limits = limits
        self._outages = outages

    def refusal(self, key: str) -> Exception | None:
        """Why the server refuses this process now."""
        return None

    def unavailable(self, why: str) -> Exception:
        raise NotImplementedError

    async def call(self, key: str, effect: Callable[[], Any]) -> Any:
        if self._world.over:
            raise asyncio.CancelledError
        reply: asyncio.Future[Any] = here().create_future()
        fate = self._world.fate(self._process)
        delay = self._world.random.uniform(0.001, 0.05)
        if fate is Fate.PAUSED_BEFORE:
            self._world.pause(self._process)
            here().call_later(delay, self._arrive, reply, fate, delay, key, effect, context=self._process.context)
        else:
            delay *= 100 if fate is Fate.SLOW and 100 * delay < self._limits.deadline else 1
            if fate is Fate.SLOW:
                self._in_trouble_for(delay)
            here().call_later(delay, self._arrive, reply, fate, delay, key, effect, context=NETWORK)
        return await reply

    def _arrive(
        self, reply: asyncio.Future[Any], fate: Fate, delay: float, key: str, effect: Callable[[], Any]
    ) -> None:
        if fate is not Fate.GOOD:
            self._in_trouble_for(0.0)
        for outage in self._outages:
            if outage.concerns(self._process):
                self._unanswered(outage, reply, fate, delay, key, effect)
                return
        if error := self.refusal(key):
            self._in_trouble_for(0.0)
            _settle(reply, error=error)
            return
        match fate:
            case Fate.KILLED_BEFORE:
                self._world.kill(self._process)
            case Fate.KILLED_AFTER:
                _result(effect)
                self._world.kill(self._process)
            case Fate.REFUSED:
                self._fail(reply, "refused", 0.0)
            case Fate.REPLY_LOST:
                _result(effect)
                self._fail(reply, "the reply was lost", 0.0)
            case Fate.NEVER_ENDS:
                left = self._limits.deadline - delay
                arrives = self._world.random.choice([None, left / 2, left * 2])
                if arrives is not None:
                    here().call_later(arrives, _result, effect, context=NETWORK)
                self._fail(reply, "the call did not end", left)
            case _:
                value, error = _result(effect)
                _settle(reply, value, error)
                if fate is Fate.PAUSED_AFTER:
                    self._world.pause(self._process)

    def _unanswered(
        self,
        outage: Outage,
        reply: asyncio.Future[Any],
        fate: Fate,
        delay: float,
        key: str,
        effect: Callable[[], Any],
    ) -> None:
        left, silence = self._limits.deadline - delay, self._limits.silence
        if not outage.silent:
            self._fail(reply, "away", 0.0)
        elif left > silence:
            again = (reply, fate, delay + silence, key, effect)
            self._in_trouble_for(silence)
            here().call_later(silence, self._arrive, *again, context=self._process.context)
        else:
            self._fail(reply, "away", left)

    def _fail(self, reply: asyncio.Future[Any], why: str, after: float) -> None:
        error = self.unavailable(why)
        self._in_trouble_for(after)
        if after > 0:
            here().call_later(after, self._give_up, reply, error, context=self._process.context)
        else:
            _settle(reply, error=error)

    def _give_up(self, reply: asyncio.Future[Any], error: Exception) -> None:
        self._in_trouble_for(0.0)
        _settle(reply, error=error)

    def _in_trouble_for(self, seconds: float) -> None:
        """The process waits for a call that does not get through, or only so late."""
        self._process.trouble_at = max(self._process.trouble_at, here().now + seconds)


def _result(effect: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return effect(), None
    except (AlreadyExists, Conflict) as error:
        return None, error


def _settle(reply: asyncio.Future[Any], value: Any = None, error: Exception | None = None) -> None:
    if reply.done():
        return
    if error is None:
        reply.set_result(value)
    else:
        reply.set_exception(error)


class SimulatedLedger(_Connection):
    """The `Ledger` of one process. As in the real store, a write that finds its own bytes there has succeeded."""

    def __init__(self, world: World, process: Process, limits: Limits = DOCUMENTS, owner: str = "") -> None:
        """`owner`: the runner that has this ledger, if it is a runner's."""
        super().__init__(world, process, limits, world.store_outages)
        self._disk = world.disk
        self._owner = owner

    def refusal(self, key: str) -> Exception | None:
        return ConfigError("AccessDenied") if self._world.denied(self._process, key) else None

    def unavailable(self, why: str) -> Exception:
        return StoreUnavailable(why)

    def now(self) -> float:
        return here().now + self._process.skew

    async def get(self, key: str) -> tuple[bytes, str] | None:
        def effect() -> tuple[bytes, str] | None:
            held = self._disk.documents.get(key)
            return (held.data, held.etag) if held else None

        found: tuple[bytes, str] | None = await self.call(key, effect)
        if key.endswith("/claim.json"):
            self._world.watch.knows(self._owner, key, found)
        return found

    async def create(self, key: str, data: bytes) -> str:
        def effect() -> str:
            held = self._disk.documents.get(key)
            if held is None:
                held = self._disk.write(self._process, key, data)
            if held.data != data:
                raise AlreadyExists(key)
            return held.etag

        return str(await self.call(key, effect))

    async def replace(self, key: str, data: bytes, etag: str) -> str:
        def effect() -> str:
            held = self._disk.documents.get(key)
            if held is not None and held.etag == etag:
                held = self._disk.write(self._process, key, data)
            if held is None or held.data != data:
                raise Conflict(key)
            return held.etag

        try:
            return str(await self.call(key, effect))
        except ConfigError:
            self._world.watch.refused(self._owner, key)
            raise

    async def put(self, key: str, data: bytes) -> None:
        """Overwrite. It is no method of a ledger, and only mutants of the protocol call it."""
        await self.call(key, lambda: self._disk.write(self._process, key, data))

    async def delete(self, key: str) -> None:
        await self.call(key, lambda: self._disk.delete(key))

    async def list(self, prefix: str) -> Sequence[Entry]:
        def effect() -> list[Entry]:
            documents = self._disk.documents
            found = [(key, documents[key]) for key in self._disk.keys(prefix)]
            return [Entry(key, held.etag, len(held.data), held.modified) for key, held in found]

        entries: list[Entry] = await self.call(prefix, effect)
        return entries

    async def folders(self, prefix: str) -> Sequence[str]:
        start = prefix.rfind("/") + 1

        def effect() -> list[str]:
            keys = self._disk.keys(prefix)
            return sorted({key[start:].split("/", 1)[0] for key in keys if "/" in key[start:]})

        names: list[str] = await self.call(prefix, effect)
        return names


class UserLedger:
    """The store as the api service has it, for what users ask: it takes its time, and never fails."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    def now(self) -> float:
        return here().now

    async def create(self, key: str, data: bytes) -> str:
        await asyncio.sleep(self._world.random.uniform(0, 0.2))
        if key in self._world.disk.documents:
            raise AlreadyExists(key)
        return self._world.disk.write(self._process, key, data).etag

    async def list(self, prefix: str) -> Sequence[Entry]:
        await asyncio.sleep(self._world.random.uniform(0, 0.2))
        found = [(key, self._world.disk.documents[key]) for key in self._world.disk.keys(prefix)]
        return [Entry(key, held.etag, len(held.data), held.modified) for key, held in found]


class SimulatedBus(_Connection):
    """The `Publisher` of one process."""

    def __init__(self, world: World, process: Process) -> None:
        super().__init__(world, process, BUS, world.bus_outages)
        self._away_since: float | None = None

    def unavailable(self, why: str) -> Exception:
        return TransientError(why)

    @property
    def away_since(self) -> float | None:
        return self._away_since

    async def publish(
        self, event: Event, *, ce_id: str, subject: str | None = None, traceparent: str | None = None
    ) -> None:
        try:
            await self.call(event.topic, lambda: self._world.deliver(event, ce_id))
        except TransientError:
            self._away_since = self._away_since or here().now
            raise
        self._away_since = None

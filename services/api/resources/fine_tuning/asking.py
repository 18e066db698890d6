"""Asks for a new job: a create-once document in the ledger, of which ingest makes the job.

Every request is a new job, because the job's id is derived from file, settings and the counter `rerun`, and the first
counter that no job has is taken. The jobs of the same file and settings so form a chain, one per `rerun`.

**A client that tries again** (`x-stainless-retry-count` of 1 or more) gets the job of its first try, if the same key
has sent the same body within the last ten minutes: the newest such job. If its first try is still being worked on in
this process, it waits for that; in another process, whoever loses the race for the counter finds the other's document
there.

**A first try that comes after its own retry** has made the job (a proxy held it back) takes that job. A first try
cannot say that it is late, so it takes the newest job that a retry with the same key and body has made within the last
ten seconds, and that no first try has taken in this process.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pydantic import ValidationError

from services.api.domain.repeats import LATE_SECONDS, REPEATED_SECONDS
from services.api.domain.stored import read_manifest
from shared.errors import AlreadyExists, InputError
from shared.events import Asked, Job
from shared.events.limits import MAX_RERUN
from shared.stages.ledger import asked_key, job_key, retry_key
from shared.store.objects import ObjectStore

MOST_CHAINS = 10_000
"""That are remembered. Another chain is searched, which takes a few calls."""

Admit = Callable[[], Awaitable[None]]
Numbered = Callable[[int], Job]
"""The manifest of the job with this `rerun`."""


@dataclass(frozen=True)
class Sender:
    """Whose request it is: the key, and the SHA-256 of the body in hex."""

    key_id: str
    request: str


@dataclass
class _Chain:
    """What this process knows of the jobs of one file and settings."""

    next: int = 0
    """Every `rerun` below is taken, and what was asked for there is known."""
    newest: dict[Sender, Asked] = field(default_factory=dict)
    late: defaultdict[Sender, list[Asked]] = field(default_factory=lambda: defaultdict(list))
    """What retries have made, and no first try has taken, oldest first."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0

    def note(self, asked: Asked) -> None:
        sender = Sender(asked.key_id, asked.request)
        self.newest[sender] = asked
        if asked.repeated:
            self.late[sender].append(asked)

    def answer(self, sender: Sender, *, repeated: bool, now: float) -> Asked | None:
        """The job that a request means which is not a new one."""
        if repeated:
            asked = self.newest.get(sender)
            return asked if asked and asked.job.created_at > now - REPEATED_SECONDS else None
        if late := self.late.pop(sender, None):
            *others, asked = late
            if asked.job.created_at > now - LATE_SECONDS:
                self.late[sender] = others
                return asked
        return None


class Asking:
    """Asks for jobs. One instance per process: requests for the same file and settings take turns."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._chains: OrderedDict[str, _Chain] = OrderedDict()
        """By the id of the chain's first job, least recently used first."""

    async def ask(self, numbered: Numbered, sender: Sender, *, repeated: bool, admit: Admit) -> tuple[Asked, bool]:
        """Ask for a job, or find the one that the same client has asked for. Returns what is in the ledger, and whether
        this call has put it there. `repeated`: it is not the client's first try. `admit` raises if there may be no new
        job.

        Raises:
            StoreUnavailable: the request may not have been written; a repeated one finds it.
        """
        async with self._chain(numbered(0).job_id) as chain:
            while True:
                await self._learn(chain, numbered)
                if known := chain.answer(sender, repeated=repeated, now=self._objects.now()):
                    return known, False
                if chain.next > MAX_RERUN:
                    message = "There are too many jobs of this file and these settings; upload the file again."
                    raise InputError("too_many_jobs", message, "training_file")
                await admit()
                asked = Asked(job=numbered(chain.next), key_id=sender.key_id, request=sender.request, repeated=repeated)
                try:
                    await self._objects.create(asked_key(asked.job.job_id), asked.model_dump_json().encode())
                except AlreadyExists:  # another replica was faster: perhaps with a try of the same client
                    continue
                chain.next += 1
                chain.note(asked)
                return asked, True

    @asynccontextmanager
    async def _chain(self, first: str) -> AsyncIterator[_Chain]:
        chain = self._chains.setdefault(first, _Chain())
        self._chains.move_to_end(first)
        chain.users += 1
        try:
            async with chain.lock:
                yield chain
        finally:
            chain.users -= 1
            while len(self._chains) > MOST_CHAINS and not next(iter(self._chains.values())).users:
                self._chains.popitem(last=False)

    async def _learn(self, chain: _Chain, numbered: Numbered) -> None:
        """Find the first `rerun` that is free, and what was asked for lately before it that this process does not
        know."""
        free = await self._free(numbered, chain.next)
        since, found = self._objects.now() - REPEATED_SECONDS, list[Asked]()
        for rerun in reversed(range(chain.next, free)):
            asked, created_at = await self._asked(numbered(rerun).job_id)
            if created_at is not None and created_at < since:
                break
            if asked:
                found.append(asked)
        for asked in reversed(found):
            chain.note(asked)
        chain.next = free

    async def _free(self, numbered: Numbered, start: int) -> int:
        """The `rerun` from `start` on at which the chain ends. The steps double, so a long chain takes few calls."""
        if not await self._is_used(numbered(start).job_id):
            return start
        low, step = start, 1
        while await self._is_used(numbered(low + step).job_id):
            low, step = low + step, step * 2
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if await self._is_used(numbered(middle).job_id) else (low, middle)
        return high

    async def _is_used(self, job_id: str) -> bool:
        """Whether there is a job of this id, or somebody has asked for it."""
        keys = (asked_key(job_id), job_key(job_id), retry_key(job_id))
        return any(await asyncio.gather(*map(self._objects.exists, keys)))

    async def _asked(self, job_id: str) -> tuple[Asked | None, float | None]:
        """What was asked for under this id, and when the job was made; None: nobody can tell."""
        if found := await self._objects.get(asked_key(job_id)):
            try:
                asked = Asked.model_validate_json(found[0])
                return asked, asked.job.created_at
            except ValidationError:  # another version wrote it
                return None, None
        made = await self._objects.get(job_key(job_id))  # its request was deleted, or it came another way
        job = read_manifest(made[0]) if made else None
        return None, job.created_at if job else None

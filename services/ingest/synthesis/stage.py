"""Synthesis as a stage of the stack: a spec in the bucket becomes a dataset in the bucket, which ingest then finds like
any other drop. Any number of replicas may look; a lease says who works on a spec."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterable, Mapping

from pydantic import SecretStr

from services.ingest.domain.synthesis import places, results
from services.ingest.domain.synthesis.plan import Seed
from services.ingest.domain.synthesis.spec import Budget, Endpoint, SynthesisSpec
from services.ingest.quarantine import Item, Quarantine
from services.ingest.synthesis.progress import Progress
from services.ingest.synthesis.run import Outcome, Synthesis
from services.ingest.synthesis.spec_file import CODE, parse_seeds, parse_spec
from services.ingest.synthesis.stored_journal import StoredJournal
from shared.drops import place_of
from shared.errors import ConfigError, InputError, LeaseLost, StoreRefused, TransientError
from shared.events import SynthesisRequested
from shared.kafka.bus import Delivery
from shared.settings import SynthesisSettings
from shared.stages.lease import Claims
from shared.stages.ledger import Entry
from shared.stages.publisher import Publisher
from shared.store.objects import ObjectStore
from shared.tasks import cancel_and_wait, wait_for_event

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
AT_A_TIME = 4
"""Specs that one process works on. They mostly wait for their endpoints."""
STOP_SECONDS = 8.0
"""For the replies that are under way when the service stops; a process has 10 seconds by default."""


class SynthesisStage:
    """Finds specs, and makes the dataset of each."""

    def __init__(
        self,
        objects: ObjectStore,
        bucket: ObjectStore,
        bus: Publisher,
        settings: SynthesisSettings,
        *,
        owner: str,
        lease_seconds: float,
    ) -> None:
        self._objects = objects
        self._bucket = bucket
        self._bus = bus
        self._most = {"tokens": settings.max_tokens, "money": settings.max_money}
        self._keys: Mapping[str, SecretStr | None] = {url.rstrip("/"): key for url, key in settings.keys.items()}
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._claims = Claims(objects.for_leases(), grace=lease_seconds / 3)
        self._bell = asyncio.Event()
        self._specs: dict[str, str] = {}
        """The ETag of each spec in the bucket."""
        self._settled: dict[str, str] = {}
        """The ETag of each spec that is done, or that cannot be done as it is."""
        self._quarantine = Quarantine(objects)
        self._working: dict[str, tuple[asyncio.Task[None], list[Synthesis]]] = {}

    def listed(self, listing: Iterable[Entry]) -> None:
        """Take note of the specs among the objects of the bucket."""
        specs = {entry.key: entry.etag for entry in listing if places.is_spec(entry.key)}
        if specs != self._specs:
            self._specs = specs
            self._bell.set()

    async def requested(self, event: SynthesisRequested, delivery: Delivery) -> None:
        """Begin with a spec at once, instead of after the next sweep.

        Raises:
            InputError: there is no spec where the event points.
        """
        pointer = event.spec
        if pointer.bucket != self._bucket.bucket or not places.is_spec(pointer.key):
            ending = places.SPEC_ENDINGS[0]
            raise InputError(CODE, f"A spec is an object NAME{ending} in the bucket {self._bucket.bucket}.", "spec")
        try:
            found = await self._bucket.get(pointer.key)
        except (ConfigError, StoreRefused):
            raise TransientError("the bucket cannot be read") from None
        if found is None:
            raise InputError("file_not_found", f"There is no object {pointer.bucket}/{pointer.key}.", "spec")
        self._specs[pointer.key] = found[1]
        self._settled.pop(pointer.key, None)
        self._bell.set()

    async def run(self) -> None:
        """Work until cancelled. Then the replies under way are waited for, and what is begun goes on elsewhere, or here
        after a restart."""
        with contextlib.suppress(TransientError):
            await self._quarantine.load()
        try:
            while True:
                self._bell.clear()
                for key, etag in list(self._specs.items()):
                    if self._may_begin(key, etag):
                        running: list[Synthesis] = []
                        self._working[key] = (asyncio.create_task(self._look(key, etag, running)), running)
                await wait_for_event(self._bell, LOOK_SECONDS)
        finally:
            tasks = [task for task, _ in self._working.values()]
            for _, running in self._working.values():
                for synthesis in running:
                    synthesis.stop()
            if tasks:
                await asyncio.wait(tasks, timeout=STOP_SECONDS)
            await cancel_and_wait(*tasks)

    def _may_begin(self, key: str, etag: str) -> bool:
        full = len(self._working) >= AT_A_TIME
        settled = self._settled.get(key) == etag
        return not (full or settled or key in self._working or self._quarantine.waits(self._item(key, etag)))

    def _item(self, key: str, etag: str) -> Item:
        place = place_of(self._bucket.bucket, key)
        return Item("drop", f"synthesis {key} {etag}", place, origin=place, version=etag)

    async def _look(self, key: str, etag: str, running: list[Synthesis]) -> None:
        """Make the dataset of a spec, unless it is made, or another owner works on it."""
        prefix = places.prefix_of(self._bucket.bucket, key)
        progress, item = Progress(self._bus, self._bucket.bucket, key, etag), self._item(key, etag)
        try:
            if await self._is_done(prefix, etag):
                self._settled[key] = etag
                return
            lease = await self._claims.take(f"{prefix}claim.json", self._owner, self._lease_seconds)
            if lease is None:
                return
            try:
                async with lease.held():
                    if await self._is_done(prefix, etag):  # the owner before has just ended
                        self._settled[key] = etag
                    elif await self._make(key, etag, prefix, progress, running):
                        await lease.certain()
                        await self._objects.put(f"{prefix}done.json", json.dumps({"etag": etag}).encode())
                        self._settled[key] = etag
                        await self._quarantine.solved(item)
            finally:
                with contextlib.suppress(LeaseLost, TransientError, ConfigError, StoreRefused):
                    await lease.give_back()
        except InputError as error:
            log.warning("a synthesis cannot be made", extra={"reason": error.code})
            self._settled[key] = etag
            await progress.tell("failed", error.with_field)
            with contextlib.suppress(TransientError, ConfigError, StoreRefused):
                await self._quarantine.final(item, error)
        except LeaseLost:
            log.warning("another replica works on a synthesis")
        except Exception as error:
            expected = isinstance(error, TransientError | ConfigError | StoreRefused)
            if not expected:
                log.exception("a synthesis cannot be made now")
            await self._quarantine.later(item, error)
            await progress.tell("waiting", str(error) if expected else "an unexpected error; the log of ingest has it")
        finally:
            self._working.pop(key, None)

    async def _is_done(self, prefix: str, etag: str) -> bool:
        found = await self._objects.get(f"{prefix}done.json")
        return found is not None and json.loads(found[0]).get("etag") == etag

    async def _make(self, key: str, etag: str, prefix: str, progress: Progress, running: list[Synthesis]) -> bool:
        """Whether the dataset is in the bucket; not if the service stops, or the spec is gone or changed.

        Raises:
            InputError: the spec or its endpoint is wrong.
            TransientError: the endpoint or the store is away.
        """
        found = await self._bucket.get(key)
        if found is None or found[1] != etag:
            return False
        spec = parse_spec(found[0], key)
        self._allow(spec.budget)
        seeds = await self._seeds(key, spec)
        dataset = places.dataset_key(key)
        if not await self._objects.exists(f"{prefix}dataset.json") and await self._bucket.exists(dataset):
            raise InputError(CODE, f"{dataset} is there, and no synthesis has made it; give the spec another name.")
        digest = spec.digest([[seed.query, seed.answer] for seed in seeds])
        journal = await StoredJournal.open(self._objects, prefix, digest)
        synthesis = Synthesis(spec, seeds, journal, key_of=self._key_of, progress=progress.keep(spec))
        running.append(synthesis)
        await progress.tell("started", "")
        async with progress.telling():
            outcome = await synthesis.run()
        if outcome.end == "stopped":
            return False
        if outcome.error is not None:
            raise outcome.error
        await self._land(spec, journal, dataset, prefix, outcome)
        message = {"budget": "the budget is reached; raise it in the spec to go on"}.get(outcome.end, "")
        await progress.tell("completed", message, dataset)
        return True

    async def _land(
        self, spec: SynthesisSpec, journal: StoredJournal, dataset: str, prefix: str, outcome: Outcome
    ) -> None:
        report = results.report(spec, journal.history, outcome.end, outcome.seconds, outcome.made, None)
        await self._objects.put(f"{prefix}report.json", json.dumps(report, ensure_ascii=False).encode())
        content = b"".join(results.rows(spec, journal.history))
        if not content:
            raise InputError(
                CODE, f"No row was made ({json.dumps(report['refused'])}); raise the budget or `attempts`."
            )
        await self._objects.put(f"{prefix}dataset.json", json.dumps({"key": dataset}).encode())
        await self._bucket.put(dataset, content)

    async def _seeds(self, key: str, spec: SynthesisSpec) -> tuple[Seed, ...]:
        if spec.seeds is None:
            return ()
        place = places.seeds_key(key, spec.seeds)
        found = await self._bucket.get(place)
        if found is None:
            raise TransientError(f"there is no object {self._bucket.bucket}/{place}, which `seeds` names; put it there")
        return parse_seeds(found[0], place)

    def _allow(self, budget: Budget) -> None:
        """Whoever may drop a spec spends no more than the operator allows.

        Raises:
            InputError: the budget is larger, or leaves it open.
        """
        for name, most in self._most.items():
            wanted = getattr(budget, name)
            if most is not None and (wanted is None or wanted > most):
                message = (
                    f"at most {most:,} are allowed for one spec; write `budget: {{{name}: {most}}}` or less, or ask "
                    f"the operator to raise TUNESTREAM_SYNTHESIS__MAX_{name.upper()}."
                )
                raise InputError(CODE, message, f"budget.{name}")

    def _key_of(self, endpoint: Endpoint) -> str | None:
        """The API key of an endpoint. Only the operator's endpoints are asked: whoever may drop a spec may neither send
        the operator's keys elsewhere, nor reach servers that only this machine reaches.

        Raises:
            InputError: the endpoint is not one of them.
        """
        if endpoint.base_url not in self._keys:
            message = f"{endpoint.base_url} is not in TUNESTREAM_SYNTHESIS__KEYS; ask the operator, or use another one."
            raise InputError(CODE, message, "endpoint.base_url")
        key = self._keys[endpoint.base_url]
        return key.get_secret_value() if key else None

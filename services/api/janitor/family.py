"""Retries and their parents: a parent keeps what the results of its retries refer to."""

from __future__ import annotations

import posixpath
from collections import defaultdict

from pydantic import ValidationError

from services.api.domain.retention import Heir, Results, builds_on_parent, ended_at, references
from shared.events import STAGE_NAMES, Retry, StageName, StageResult
from shared.stages.ledger import RETRIES, Entry, published_key, result_key
from shared.store.objects import ObjectStore


class UnreadableResult(Exception):
    """A result that this version cannot read. Of its job, and of those that it is a retry of, nothing is deleted."""


async def read_results(objects: ObjectStore, job_id: str, stages: tuple[StageName, ...] = STAGE_NAMES) -> Results:
    """The results of a job.

    Raises:
        UnreadableResult: one of them cannot be read.
        StoreUnavailable, ConfigError, StoreRefused: the store does not answer, or refuses it.
    """
    results: dict[StageName, StageResult] = {}
    for stage in stages:
        if found := await objects.get(result_key(job_id, stage)):
            try:
                results[stage] = StageResult.model_validate_json(found[0])
            except ValidationError:
                raise UnreadableResult(job_id) from None
    return results


class Family:
    """The retries that there are, by their requests in `ingest/retries/`. Every retry begins with one, and it stays as
    long as its job builds on attempts of the parent."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._known: dict[str, str | None] = {}
        """The parent of each retry, by the key of its request. None: the request cannot be read."""
        self.requests: list[Entry] = []

    async def look(self) -> None:
        """Read the requests that are not known yet. What is about to be deleted may be wanted by a new one."""
        self.requests = [entry async for entry in self._objects.walk(RETRIES)]
        for entry in self.requests:
            if entry.key not in self._known and (found := await self._objects.get(entry.key)):
                try:
                    self._known[entry.key] = Retry.model_validate_json(found[0]).parent_job
                except ValidationError:
                    self._known[entry.key] = None

    async def heirs(self, job_id: str) -> list[Heir]:
        """The retries of a job, and the retries of those.

        Raises:
            UnreadableResult: nobody knows what one of them refers to.
        """
        children: dict[str | None, list[str]] = defaultdict(list)
        for key, parent in self._known.items():
            children[parent].append(_job_of(key))
        heirs, met, waiting = list[Heir](), {job_id}, [job_id]
        while waiting:
            for child in children[waiting.pop()]:
                if child not in met:
                    met.add(child)
                    waiting.append(child)
                    results = await read_results(self._objects, child)
                    heirs.append(Heir(ended_at(results) is not None, references(results)))
        return heirs

    async def done_with(self, entry: Entry) -> bool:
        """Whether nobody needs the request of a retry any more: its job has ended, its results need nothing of the
        parent that the parent would not keep by itself, and no other retry leads through it.

        Raises:
            UnreadableResult: nobody knows what its job refers to.
        """
        job_id = _job_of(entry.key)
        if job_id in self._known.values():
            return False
        if not await self._objects.exists(published_key(job_id, "ingest")):
            return False
        results = await read_results(self._objects, job_id)
        return ended_at(results) is not None and not builds_on_parent(job_id, results)


def _job_of(key: str) -> str:
    return posixpath.basename(key).removesuffix(".json")

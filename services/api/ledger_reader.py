"""Reads from the ledger what the projection does not know about a job yet."""

from __future__ import annotations

import contextlib
import logging
import math
from typing import TypeVar

from pydantic import ValidationError

from services.api.domain.projection import Claimed, Fact, Manifest, Occurred, Wished
from services.api.domain.state import JobState
from services.api.domain.stored import read_manifest
from shared import control
from shared.errors import StoreRefused
from shared.events import STAGE_NAMES, Asked, Claim, FrozenModel, Job, StageName, StageResult
from shared.ids import is_job_id
from shared.stages.ledger import Ledger, asked_key, claim_key, job_key, result_key

log = logging.getLogger(__name__)
D = TypeVar("D", bound=FrozenModel)


class _Unreadable(Exception):
    """A document is there, but cannot be read."""


class LedgerReader:
    """Reads jobs from a ledger. A document that cannot be read is passed over, and logged once."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._complained: set[str] = set()
        """Keys of documents that were logged as unreadable."""

    async def read(self, state: JobState) -> list[Fact]:
        """The facts that `state` lacks, oldest first. That takes three or four small reads for a job that is under way,
        and none for a job that is settled.

        Raises:
            StoreUnavailable: the ledger does not answer. No fact is returned.
            ConfigError: the ledger refuses every call.
        """
        facts: list[Fact] = []
        if state.manifest is None:
            job = await self._manifest(state.job_id)
            if job is None:
                return []
            facts.append(Manifest(job))
        if not state.settled:
            facts += await self._wishes(state)
        for stage in STAGE_NAMES:
            known = state.stage(stage).outcome
            if known is None or not known.committed:
                try:
                    result = await self._result(state.job_id, stage)
                except _Unreadable:
                    continue  # the stage has ended, and the later ones may say how the job went on
                if result is None:
                    return [*facts, *await self._claim(state, stage, facts)]
                facts.append(result)
        return facts

    async def miss(self, job_id: str) -> None:
        """Ask for a job as for one that does not exist, and forget the answer.

        Raises:
            StoreUnavailable, ConfigError: the ledger does not answer, or refuses every call.
        """
        for key in (job_key(job_id), asked_key(job_id)):
            with contextlib.suppress(StoreRefused):
                await self._ledger.get(key)

    async def has_result(self, job_id: str, stage: str) -> bool:
        """Whether a stage has ended. A later version may have stages that this one does not know.

        Raises:
            StoreUnavailable, ConfigError: the ledger does not answer, or refuses every call.
        """
        if not is_job_id(stage):  # no name of a stage: it could lead elsewhere
            return False
        try:
            return await self._ledger.get(result_key(job_id, stage)) is not None
        except StoreRefused:
            return True  # it is there, and cannot be read

    async def _manifest(self, job_id: str) -> Job | None:
        try:
            found = await self._ledger.get(job_key(job_id))
        except StoreRefused as error:
            self._unreadable(job_key(job_id), job_id, error)
            return None
        if found is None:
            return await self._asked(job_id)
        job = read_manifest(found[0])
        if job is None:
            self._unreadable(job_key(job_id), job_id, ValueError("no manifest"))
        return job

    async def _asked(self, job_id: str) -> Job | None:
        """The manifest of a job that another instance has accepted, and that ingest is about to make."""
        try:
            asked = await self._read(asked_key(job_id), Asked, job_id)
        except _Unreadable:
            return None
        return asked.job if asked and asked.job.job_id == job_id else None

    async def _result(self, job_id: str, stage: StageName) -> Occurred | None:
        key = result_key(job_id, stage)
        result = await self._read(key, StageResult, job_id)
        if result is None:
            return None
        try:
            event = result.event.event()
        except (ValidationError, KeyError) as error:
            raise self._unreadable(key, job_id, error) from None
        return Occurred(event, result.event.id, result.finished_at, committed=True, attempt=result.attempt)

    async def _wishes(self, state: JobState) -> list[Wished]:
        """The pauses and resumes that `state` lacks, in order."""
        wanted = await control.read(self._ledger, state.job_id)
        paused, resumed = (wish.number if wish else 0 for wish in (state.paused, state.resumed))
        pauses = [Wished(state.job_id, "pause", number, at) for number, at in wanted.pauses.items() if number > paused]
        resumes = [
            Wished(state.job_id, "resume", number, at) for number, at in wanted.resumes.items() if number > resumed
        ]
        return sorted([*pauses, *resumes], key=lambda wish: (wish.number, wish.action))

    async def _claim(self, state: JobState, stage: StageName, facts: list[Fact]) -> list[Fact]:
        """The claim, if it is news; not a mere renewal, which comes every few seconds. `facts`: what was found before
        it."""
        try:
            claim = await self._read(claim_key(state.job_id, stage), Claim, state.job_id)
        except _Unreadable:
            return []
        if claim is None:
            return []
        fact = Claimed(state.job_id, stage, self._ledger.now(), claim)
        resumed = [found.at for found in facts if isinstance(found, Wished)]
        resumed += [state.resumed.at] if state.resumed else []
        return [fact] if fact.seen.is_news(state.stage(stage).claim, max(resumed, default=-math.inf)) else []

    async def _read(self, key: str, kind: type[D], job_id: str) -> D | None:
        try:
            found = await self._ledger.get(key)
            return kind.model_validate_json(found[0]) if found else None
        except (ValidationError, StoreRefused) as error:
            raise self._unreadable(key, job_id, error) from None

    def _unreadable(self, key: str, job_id: str, error: Exception) -> _Unreadable:
        if key not in self._complained:
            self._complained.add(key)
            about = {"job_id": job_id, "reason": type(error).__name__}
            log.error("a document of the ledger cannot be read", extra=about)
        return _Unreadable(key)

"""Reads from the ledger what the projection does not know about a job yet."""

from __future__ import annotations

import logging

from pydantic import ValidationError

from services.api.domain.projection import Claimed, Fact, Manifest, Occurred
from services.api.domain.state import JobState
from services.api.domain.stored import read_manifest
from shared.events import STAGE_NAMES, Claim, StageName, StageResult
from shared.stages.ledger import Ledger, job_key, stage_prefix

log = logging.getLogger(__name__)


async def read_job(ledger: Ledger, state: JobState, now: float) -> list[Fact]:
    """The facts that `state` lacks, oldest first. That takes two or three small reads for a job that is under way, and
    none for a job that is settled.

    A document that cannot be read gives no fact: it must not make a bug of every request and event about the job.

    Raises:
        StoreUnavailable: the ledger does not answer. No fact is returned.
    """
    facts: list[Fact] = []
    if state.manifest is None:
        found = await ledger.get(job_key(state.job_id))
        if found is None:
            return []
        job = read_manifest(found[0])
        if job is None:
            log.error("the manifest of a job cannot be read", extra={"job_id": state.job_id})
            return []
        facts.append(Manifest(job))
    for stage in STAGE_NAMES:
        known = state.stage(stage).outcome
        if known is None or not known.committed:
            result = await _result(ledger, state.job_id, stage)
            if result is None:
                return [*facts, *await _claim(ledger, state.job_id, stage, now)]
            facts.append(result)
    return facts


async def _result(ledger: Ledger, job_id: str, stage: StageName) -> Occurred | None:
    found = await ledger.get(stage_prefix(job_id, stage) + "result.json")
    if found is None:
        return None
    try:
        result = StageResult.model_validate_json(found[0])
        event = result.event.event()
    except (ValidationError, KeyError):
        log.error("the result of a stage cannot be read", extra={"job_id": job_id, "stage": stage})
        return None
    return Occurred(event, result.event.id, result.finished_at, committed=True, attempt=result.attempt)


async def _claim(ledger: Ledger, job_id: str, stage: StageName, now: float) -> list[Fact]:
    found = await ledger.get(stage_prefix(job_id, stage) + "claim.json")
    if found is None:
        return []
    try:
        claim = Claim.model_validate_json(found[0])
    except ValidationError:
        log.error("the claim of a stage cannot be read", extra={"job_id": job_id, "stage": stage})
        return []
    if claim.expires > now:
        return [Claimed(stage, now, retrying=False)]
    return [Claimed(stage, now, retrying=True)] if claim.not_before else []

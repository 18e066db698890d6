"""Reads what is stored of a job, as far as it can be read: one damaged or older document must not hide the job, and one
job must not hide the others."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from services.api.domain.state import JobState, StageState, Stamped
from shared import strict_json
from shared.events import Job

M = TypeVar("M", bound=BaseModel)


def read_state(job_id: str, text: str) -> JobState:
    """The state in a row of the database. What cannot be read is left out; the ledger still has it."""
    try:
        state = JobState.model_validate_json(text)
        return state if state.job_id == job_id else JobState(job_id=job_id)
    except ValidationError:
        found = _parsed(text)
    stages = {name: _stage(value) for name, value in _object(found.get("stages")).items()}
    return JobState(job_id=job_id, manifest=_manifest(found.get("manifest")), stages=stages)


def read_manifest(data: bytes) -> Job | None:
    """The manifest in `job.json`, without its settings if those cannot be read; None: it cannot be read at all."""
    try:
        return Job.model_validate_json(data)
    except ValidationError:
        return _manifest(_parsed(data))


def _manifest(found: Any) -> Job | None:
    # the settings are the part that a user writes; an older version wrote `null` where a number was infinite
    return _read(Job, found) or _read(Job, _object(found) | {"spec": {}})


def _stage(found: Any) -> StageState:
    fields = _object(found)
    if stage := _read(StageState, fields):
        return stage
    kept: dict[str, Any] = {
        name: value for name, value in fields.items() if _read(StageState, {name: value}) is not None
    }
    for name in ("latest", "figures"):
        stamped = {key: _read(Stamped, value) for key, value in _object(fields.get(name)).items()}
        kept[name] = {key: value for key, value in stamped.items() if value is not None}
    return StageState.model_validate(kept)


def _read(model: type[M], found: Any) -> M | None:
    try:
        return model.model_validate(found)
    except ValidationError:
        return None


def _parsed(data: bytes | str) -> dict[str, Any]:
    try:
        return _object(strict_json.loads(data))
    except strict_json.InvalidJson:
        return {}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}

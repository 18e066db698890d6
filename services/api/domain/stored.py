"""Reads the manifest of a job as far as it can be read: settings that an older version wrote must not hide the job."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from shared import strict_json
from shared.events import Job

M = TypeVar("M", bound=BaseModel)


def read_manifest(data: bytes) -> Job | None:
    """The manifest in `job.json`, without its settings if those cannot be read; None: it cannot be read at all."""
    try:
        return Job.model_validate_json(data)
    except ValidationError:
        return _manifest(_parsed(data))


def _manifest(found: Any) -> Job | None:
    # the settings are the part that a user writes; an older version wrote `null` where a number was infinite
    return _read(Job, found) or _read(Job, _object(found) | {"spec": {}})


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

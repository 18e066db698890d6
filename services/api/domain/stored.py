"""Reads the manifest of a job as far as it can be read: settings that an older version wrote must not hide the job."""

from __future__ import annotations

import contextlib

from pydantic import ValidationError

from shared import strict_json
from shared.events import Job


def read_manifest(data: bytes) -> Job | None:
    """The manifest in `job.json`, without its settings if those cannot be read; None: it cannot be read at all."""
    with contextlib.suppress(ValidationError):
        return Job.model_validate_json(data)
    # the settings are the part that a user writes; an older version wrote `null` where a number was infinite
    with contextlib.suppress(strict_json.InvalidJson, ValidationError):
        found = strict_json.loads(data)
        if isinstance(found, dict):
            return Job.model_validate(found | {"spec": {}})
    return None

"""Reads the `model` of a request. It may be the base, the immutable id of a tuned model or of its checkpoint, or an
alias."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TUNED_NAME = re.compile(
    r"ft:[A-Za-z0-9._-]+:[A-Za-z0-9._-]*:[A-Za-z0-9._-]*:(?P<job>[a-z2-7]{8})(?::ckpt-step-(?P<step>[0-9]{1,9}))?"
)


@dataclass(frozen=True)
class TunedName:
    """A tuned model, or its checkpoint at `step`. `model`: the id without the checkpoint; `job_prefix`: the first 8
    characters of the job id after `ftjob-`."""

    model: str
    job_prefix: str
    step: int | None = None


def tuned_name(model: str) -> TunedName | None:
    """Read `ft:{base}:{org}:{suffix}:{8 chars}`, with or without `:ckpt-step-{n}`; None if `model` has another form."""
    match = _TUNED_NAME.fullmatch(model)
    if match is None:
        return None
    step = match["step"]
    return TunedName(model.partition(":ckpt-step-")[0], match["job"], int(step) if step else None)

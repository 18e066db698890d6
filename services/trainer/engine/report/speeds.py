"""The file that keeps what trainings took on this machine. What cannot be read is forgotten, and what cannot be written
is not kept: estimates are then those of the plan."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from services.trainer.domain.speeds import Speed, kept

NAME = "speeds.json"
"""What the file is called in the work folder of the trainer."""
_SPEEDS = TypeAdapter(list[Speed])


def read(path: str | Path | None) -> list[Speed]:
    """All trainings that are known, the oldest first."""
    if path is None:
        return []
    try:
        return _SPEEDS.validate_json(Path(path).read_bytes())
    except (OSError, ValidationError):
        return []


def add(path: str | Path, speed: Speed) -> None:
    """Remember a training."""
    target = Path(path)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(_SPEEDS.dump_json(kept(read(target), speed), indent=1))
        temporary.replace(target)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()

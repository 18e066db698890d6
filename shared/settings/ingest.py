"""The section of ingest: how datasets are found, and how files become datasets that are none yet."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shared.settings.sections import Section


class IngestSettings(Section):
    """How dropped datasets are found, and converted."""

    notifications_topic: str | None = None
    """The topic of the store's bucket notifications; None: only the sweep finds dropped files."""
    sweep_seconds: float = 2.0
    """The shortest pause between two sweeps; a large, idle bucket is listed less often."""
    settle_seconds: float = 1.0
    """An object younger than this must look the same in two sweeps before it is taken: it may be overwritten again."""
    conversions: Annotated[int, Field(ge=1)] = 2
    """How many files that are not in a training format are read at a time, each by a process of its own."""
    memory_bytes: Annotated[int, Field(ge=2**28)] = 2**31
    """The most memory of such a process."""
    max_unpacked_bytes: Annotated[int, Field(ge=1)] = 64 * 2**30
    """The most bytes of such a file, unpacked."""

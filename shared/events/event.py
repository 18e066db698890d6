"""What all events have in common, and the names of the stages and services that send and read them."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal, get_args

from shared.events.models import FrozenModel

StageName = Literal["ingest", "validate", "trainer", "evaluator", "inference"]
STAGE_NAMES: tuple[StageName, ...] = get_args(StageName)
"""The stages in the order in which a job passes them. Each is also the name of a service."""
RUNNER_STAGES = STAGE_NAMES[1:]
"""The stages that `shared/stages/runner.py` runs; ingest only makes the job."""
NEXT_STAGE: dict[StageName, StageName] = dict(pairwise(STAGE_NAMES))
"""The stage that goes on where a stage ends; the last one has none."""
SERVICES = (*STAGE_NAMES, "api")
StageOutcome = Literal["completed", "failed", "cancelled"]
"""How a stage ends."""
ProgressState = Literal["started", "running", "checkpoint", "retrying", "waiting", "completed", "not_promoted"]
"""What `job.progress` says of a stage. `waiting`: something outside is unavailable, or a setting is wrong; the message
says what, and the stage goes on when it is mended."""


class Event(FrozenModel):
    """Base of all events. The CloudEvents type is made from `topic`: `tunestream.{topic}.v1`."""

    topic: ClassVar[str]
    sent_by: ClassVar[tuple[str, ...]]
    read_by: ClassVar[tuple[str, ...]]
    """Names of services; `anyone` stands for programs that are not part of Tunestream."""

    @classmethod
    def ce_type(cls) -> str:
        return f"tunestream.{cls.topic}.v1"

"""Other systems that a job tells of its training: a part of its settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shared.events import limits
from shared.events.models import StrictModel


class Wandb(StrictModel):
    """A run in Weights & Biases: its project, and what it is called there."""

    project: Annotated[str, Field(max_length=limits.INTEGRATION_CHARS)]
    name: Annotated[str, Field(max_length=limits.INTEGRATION_CHARS)] | None = None
    """None: the id of the job."""
    entity: Annotated[str, Field(max_length=limits.INTEGRATION_CHARS)] | None = None
    """A team or a user; None: that of the key."""
    tags: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=50)] = ()


class Integration(StrictModel):
    """Another system that is told of the training."""

    type: Literal["wandb"]
    wandb: Wandb

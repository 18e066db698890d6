"""The events of the synthesis of a dataset."""

from __future__ import annotations

from typing import ClassVar, Literal

from shared.events.event import Event
from shared.events.limits import Count, Id, Text
from shared.events.references import DatasetPointer


class SynthesisRequested(Event):
    """Make the dataset of a spec that is in the bucket now, instead of after ingest's next sweep."""

    topic: ClassVar[str] = "synthesis.requested"
    sent_by = ("anyone",)
    read_by = ("ingest",)
    spec: DatasetPointer
    """`NAME.synthesis.yaml` in the bucket for datasets."""


class SynthesisProgress(Event):
    """How far a synthesis is. Its end is a dataset in the bucket, which becomes an ordinary `dataset.uploaded`."""

    topic: ClassVar[str] = "synthesis.progress"
    sent_by = ("ingest",)
    read_by = ("anyone",)
    spec: DatasetPointer
    state: Literal["started", "running", "waiting", "completed", "failed"] | Id
    """`waiting`: something outside is unavailable; the message says what. `failed`: the spec has to be changed."""
    message: Text = ""
    made: Count = 0
    """Rows."""
    wanted: Count = 0
    refused: Count = 0
    """Attempts that made no row."""
    tokens: Count = 0
    """The most that may have been used so far."""
    money: float | None = None
    """In the currency of the spec's prices."""
    dataset: DatasetPointer | None = None

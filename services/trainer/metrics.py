"""What the trainer tells of the training that runs, for /metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prometheus_client import Counter, Gauge

tokens = Counter("tunestream_training_tokens_total", "Tokens of the batches trained on")
tokens_per_second = Gauge("tunestream_training_tokens_per_second", "Speed of the last step; 0 while nothing is trained")
step = Gauge("tunestream_training_step", "Steps done of the training that runs; 0 before its first and when none runs")
total_steps = Gauge("tunestream_training_total_steps", "Steps it will have; 0 when none runs")
loss = Gauge("tunestream_training_loss", "Its last losses; split: train, valid; absent when none runs", ["split"])


@contextmanager
def training() -> Iterator[None]:
    """Forgets the figures of a training when it is over, however it ends."""
    try:
        yield
    finally:
        for gauge in (tokens_per_second, step, total_steps):
            gauge.set(0)
        loss.clear()


def stepped(row: Mapping[str, Any]) -> None:
    """Take the row of a step, as the training process reports it."""
    tokens.inc(row["tokens"])
    tokens_per_second.set(row["tokens_per_second"])
    step.set(row["step"])
    total_steps.set(row["total_steps"])
    for split in ("train", "valid"):
        if (value := row.get(f"{split}_loss")) is not None:
            loss.labels(split).set(value)

"""What the trainer tells of the training that runs, for /metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge

from services.trainer.messages import StepMetrics

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


def stepped(metrics: StepMetrics) -> None:
    """Count a step of the training process."""
    tokens.inc(metrics.tokens)
    tokens_per_second.set(metrics.tokens_per_second)
    step.set(metrics.step)
    total_steps.set(metrics.total_steps)
    for split, value in (("train", metrics.train_loss), ("valid", metrics.valid_loss)):
        if value is not None:
            loss.labels(split).set(value)

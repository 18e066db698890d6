"""The figures of the running training, for /metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge

from services.trainer.engine.messages import StepRow

tokens = Counter("tunestream_training_tokens_total", "Tokens in the batches that were trained on")
tokens_per_second = Gauge("tunestream_training_tokens_per_second", "Speed of the last step; 0 while no training runs")
step = Gauge("tunestream_training_step", "Finished steps of the running training; 0 while no training runs")
total_steps = Gauge("tunestream_training_total_steps", "All steps of the running training; 0 while no training runs")
loss = Gauge(
    "tunestream_training_loss",
    "Last losses of the running training; split: train, valid; absent while no training runs",
    ["split"],
)


@contextmanager
def training() -> Iterator[None]:
    """Reset the gauges when the training is over, however it ends."""
    try:
        yield
    finally:
        for gauge in (tokens_per_second, step, total_steps):
            gauge.set(0)
        loss.clear()


def record_step(row: StepRow) -> None:
    """Count a step of the training process."""
    if not row.skipped:
        tokens.inc(row.tokens)
    tokens_per_second.set(row.tokens_per_second)
    step.set(row.step)
    total_steps.set(row.total_steps)
    for split, value in (("train", row.train_loss), ("valid", row.valid_loss)):
        if value is not None:
            loss.labels(split).set(value)

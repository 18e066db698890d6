"""The figures of the running training, for /metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge

from services.trainer.engine.messages import Progress, StepDone, StepRow

tokens = Counter("tunestream_training_tokens_total", "Tokens in the batches that were trained on")
tokens_per_second = Gauge("tunestream_training_tokens_per_second", "Speed of the last steps; 0 while no training runs")
mfu = Gauge(
    "tunestream_training_mfu_ratio",
    "Share of the GPU's peak that the arithmetic of the training reaches; 0 while no training runs, or where the peak "
    "of the device is not known",
)
eta_seconds = Gauge(
    "tunestream_training_eta_seconds", "Seconds until the last step of the running training; 0 while no training runs"
)
memory_bytes = Gauge(
    "tunestream_training_memory_bytes",
    "Memory that the training process uses: of the GPU, else of the host; 0 while no training runs",
)
peak_memory_bytes = Gauge(
    "tunestream_training_peak_memory_bytes", "The most of it since the training process began; 0 while no training runs"
)
step = Gauge("tunestream_training_step", "Finished steps of the running training; 0 while no training runs")
total_steps = Gauge("tunestream_training_total_steps", "All steps of the running training; 0 while no training runs")
loss = Gauge(
    "tunestream_training_loss",
    "Last losses of the running training; split: train, valid; absent while no training runs",
    ["split"],
)


_FIGURES = {
    "tokens_per_second": tokens_per_second,
    "mfu": mfu,
    "eta_seconds": eta_seconds,
    "memory_bytes": memory_bytes,
    "peak_memory_bytes": peak_memory_bytes,
}


@contextmanager
def training() -> Iterator[None]:
    """Reset the gauges when the training is over, however it ends."""
    try:
        yield
    finally:
        for gauge in (step, total_steps, *_FIGURES.values()):
            gauge.set(0)
        loss.clear()


def record_figures(message: StepDone | Progress) -> None:
    """Show how fast the training is, when it ends and what it uses."""
    for name, gauge in _FIGURES.items():
        if (value := getattr(message, name)) is not None:
            gauge.set(value)


def record_step(row: StepRow) -> None:
    """Count a step of the training process."""
    if not row.skipped:
        tokens.inc(row.tokens)
    step.set(row.step)
    total_steps.set(row.total_steps)
    for split, value in (("train", row.train_loss), ("valid", row.valid_loss)):
        if value is not None:
            loss.labels(split).set(value)

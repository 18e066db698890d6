"""What a scrape sees of a training."""

from __future__ import annotations

import pytest

from services.trainer import metrics
from services.trainer.engine.messages import Progress, StepDone, StepRow
from tests.support.scrape import scrape

SEVENTH = StepRow(
    step=7,
    total_steps=20,
    epoch=0.7,
    train_loss=1.5,
    train_mean_token_accuracy=0.5,
    learning_rate=1e-3,
    grad_norm=1.0,
    tokens=512,
    tokens_per_second=128.0,
)


async def test_the_figures_are_those_of_the_training_that_runs() -> None:
    before = await scrape()
    with pytest.raises(RuntimeError), metrics.training():
        metrics.record_step(SEVENTH)
        metrics.record_step(SEVENTH.model_copy(update={"step": 8, "valid_loss": 1.25}))
        metrics.record_figures(StepDone.model_validate({"at": 1.0, "eta_seconds": 3.0, **SEVENTH.columns()}))
        during = await scrape()
        raise RuntimeError("the process crashed")
    after = await scrape()

    tokens = "tunestream_training_tokens_total"
    assert during.value(tokens) - before.value(tokens) == 1024
    assert during.value("tunestream_training_tokens_per_second") == 128
    assert during.value("tunestream_training_step") == 8
    assert during.value("tunestream_training_total_steps") == 20
    assert during.value("tunestream_training_loss", split="train") == 1.5
    assert during.value("tunestream_training_loss", split="valid") == 1.25
    assert after.value(tokens) == during.value(tokens)
    assert after.value("tunestream_training_tokens_per_second") == after.value("tunestream_training_step") == 0
    assert not after.labels("tunestream_training_loss")


async def test_speed_and_memory_are_those_of_the_last_message() -> None:
    figures = {"tokens_per_second": 99.5, "mfu": 0.41, "eta_seconds": 30.0, "memory_bytes": 5, "peak_memory_bytes": 7}
    names = {
        "tunestream_training_tokens_per_second": 99.5,
        "tunestream_training_mfu_ratio": 0.41,
        "tunestream_training_eta_seconds": 30.0,
        "tunestream_training_memory_bytes": 5,
        "tunestream_training_peak_memory_bytes": 7,
    }
    with metrics.training():
        metrics.record_figures(Progress.model_validate({"at": 1.0, "phase": "epoch 1", "seconds": 5.0, **figures}))
        metrics.record_figures(Progress(at=2.0, phase="save", seconds=5.0))
        during = await scrape()
    after = await scrape()
    assert {name: during.value(name) for name in names} == names
    assert not any(after.value(name) for name in names)

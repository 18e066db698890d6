"""What a job says of its training, and how often."""

from __future__ import annotations

import pytest

from services.trainer.engine.messages import AnyMessage, Estimated, MemoryLowered, PhaseBegan, Progress, StepDone
from services.trainer.job.telling import Telling
from tests.support.data.jobs import make_attempt, make_job


def step(number: int, total: int, per_epoch: int = 10**6, **more: float) -> StepDone:
    data = {"step": number, "total_steps": total, "epoch": round(number / per_epoch, 4), "learning_rate": 0.1}
    data |= {"tokens": 64, "tokens_per_second": 10.0, "train_loss": 1.0, "eta_seconds": 5.0}
    return StepDone.model_validate({"at": 1.0, **data, **more})


class Told:
    """The progress of one training; `now` is the time."""

    def __init__(self) -> None:
        self.now = 0.0
        attempt, self.progress = make_attempt(make_job(), "trainer")
        self.telling = Telling(attempt, clock=lambda: self.now)

    async def hear(self, *messages: AnyMessage, each: float = 0.0) -> list[int | None]:
        """The steps that are told of these messages, which come `each` seconds apart."""
        before = len(self.progress)
        for message in messages:
            self.now += each
            await self.telling.hear(message)
        return [event.step for event in self.progress[before:]]


@pytest.fixture
def told() -> Told:
    return Told()


async def test_every_slow_step_is_told(told: Told) -> None:
    assert await told.hear(*(step(n, 100) for n in range(1, 100)), each=6.0) == list(range(1, 100))


async def test_of_many_steps_a_second_a_reader_gets_a_few_and_later_one_every_five_seconds(told: Told) -> None:
    first_minute = await told.hear(*(step(n, 10**6) for n in range(1, 1201)), each=0.05)
    assert 60 <= len(first_minute) <= 120
    await told.hear(*(step(n, 10**6) for n in range(1201, 12_001)), each=0.05)
    later = await told.hear(*(step(n, 10**6) for n in range(12_001, 14_001)), each=0.05)
    assert len(later) == pytest.approx(20, abs=1), "in 100 seconds"


async def test_what_a_reader_would_miss_is_told_however_fast_steps_are(told: Told) -> None:
    steps = [step(n, 40, per_epoch=10, **({"valid_loss": 1.5} if n == 17 else {})) for n in range(1, 41)]
    assert await told.hear(*steps) == [1, 10, 17, 20, 30, 40]


async def test_how_fast_it_is_and_what_it_uses_is_told_within_a_long_step(told: Told) -> None:
    progress = {"phase": "epoch 1", "seconds": 62.0, "step": 3, "total_steps": 9, "eta_seconds": 75.0}
    figures = {"tokens_per_second": 1234.0, "mfu": 0.43, "memory_bytes": 5, "peak_memory_bytes": 7}
    await told.hear(Progress.model_validate({"at": 1.0, **progress, **figures}))
    [event] = told.progress
    assert (event.step, event.total_steps, event.eta_seconds, event.message) == (3, 9, 75.0, "")
    assert event.data == {"progress": {"phase": "epoch 1", "seconds": 62.0}, **figures}


async def test_how_far_a_phase_is_goes_with_the_phase(told: Told) -> None:
    await told.hear(
        PhaseBegan(at=1.0, phase="tokenize"),
        Progress(at=6.0, phase="tokenize", seconds=5.0, done=400, total=1000),
        Progress(at=12.0, phase="load", seconds=5.0, memory_bytes=9),
    )
    assert [event.data for event in told.progress] == [
        {"phase": "tokenize"},
        {"progress": {"phase": "tokenize", "seconds": 5.0, "done": 400, "total": 1000}},
        {"progress": {"phase": "load", "seconds": 5.0}, "memory_bytes": 9},
    ]


async def test_what_a_training_needs_is_told_and_that_it_has_less_memory(told: Told) -> None:
    await told.hear(
        Estimated(at=1.0, memory_bytes=13_207_024_435, tokens_per_second=14_350.4, seconds=81.2),
        Estimated(at=1.0, memory_bytes=2**30),
        MemoryLowered(at=2.0, step=3, micro_tokens=4096, recompute=True),
        MemoryLowered(at=3.0, step=4, micro_tokens=0, recompute=True),
    )
    assert [event.message for event in told.progress] == [
        "training: estimated 12.3 GiB of memory, 81 s at 14350 tokens/s",
        "training: estimated 1.0 GiB of memory",
        "training: memory ran out at step 3: done again with micro-batches of 4096 tokens, activations recomputed",
        "training: memory ran out at step 4: done again with one row at a time, activations recomputed",
    ]
    assert told.progress[0].data == {
        "estimate": {"memory_bytes": 13_207_024_435, "tokens_per_second": 14_350.4, "seconds": 81.2, "step": 0}
    }

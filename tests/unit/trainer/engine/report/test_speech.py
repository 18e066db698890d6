"""What a run says when nothing else is said for a while."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.trainer.engine.messages import AnyMessage, Progress, StepDone, StepRow, parse_message
from services.trainer.engine.report.pace import Pace
from services.trainer.engine.report.reporter import Reporter
from tests.support.waiting import until

GIB = 2**30
ROW = StepRow(step=1, total_steps=4, epoch=0.25, train_loss=2.0, learning_rate=0.1, tokens=64, tokens_per_second=1.0)


class Said:
    """What a reporter has written so far."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self._text = ""

    @property
    def text(self) -> str:
        self._text += self._capture.readouterr().out
        return self._text

    def messages(self) -> list[AnyMessage]:
        complete = self.text.rpartition("\n")[0]
        return [message for line in complete.splitlines() if (message := parse_message(line))]

    def progress(self) -> list[Progress]:
        return [message for message in self.messages() if isinstance(message, Progress)]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)


async def test_a_long_phase_says_how_far_it_is_and_what_it_uses(tmp_path: Path, said: Said) -> None:
    reporter = Reporter(tmp_path, events=True)
    with reporter.speaking(lambda: (GIB, 2 * GIB), every=0.05):
        reporter.phase("tokenize")
        reporter.count(30, 120)
        await until(said.progress, "it says how far it is")
        found = said.progress()[-1]
        reporter.phase("load")
        await until(lambda: said.progress()[-1].phase == "load", "the next phase speaks")
        later = said.progress()[-1]
    assert (found.phase, found.done, found.total) == ("tokenize", 30, 120)
    assert (found.memory_bytes, found.peak_memory_bytes) == (GIB, 2 * GIB)
    assert found.seconds > 0
    assert found.eta_seconds is None and found.step is None
    assert later.done is None, "what was counted in another phase is not of this one"


async def test_a_long_step_says_when_training_ends(tmp_path: Path, said: Said) -> None:
    reporter, pace = Reporter(tmp_path, events=True), Pace(4, {}, ())
    with reporter.speaking(lambda: (1, 2), every=0.05):
        reporter.follow(pace)
        pace.begin_step()
        pace.end_step(1, 64, 0.5)
        await until(said.progress, "it speaks within the second step")
        found = said.progress()[0]
    assert (found.step, found.total_steps) == (1, 4)
    assert found.eta_seconds is not None and found.tokens_per_second is not None


def test_who_says_enough_is_not_interrupted_and_ends_in_silence(tmp_path: Path, said: Said) -> None:
    reporter = Reporter(tmp_path, events=True)
    with reporter.speaking(lambda: (1, 2), every=60.0):
        reporter.phase("load")
        reporter.phase("save")
    assert not said.progress()


def test_a_step_tells_the_speed_of_the_last_steps_and_its_row_keeps_its_own(tmp_path: Path, said: Said) -> None:
    reporter, pace = Reporter(tmp_path, events=True), Pace(4, {}, ())
    with reporter.speaking(lambda: (GIB, GIB), every=60.0):
        reporter.start_rows(b"")
        reporter.follow(pace)
        pace.begin_step()
        pace.end_step(1, 64, 0.5)
        reporter.step(ROW)
    [told] = [message for message in said.messages() if isinstance(message, StepDone)]
    assert told.tokens_per_second == pytest.approx(pace.tokens_per_second, abs=0.1)
    assert (told.memory_bytes, told.mfu) == (GIB, None)
    assert reporter.rows() == [ROW]


async def test_a_machine_that_cannot_be_asked_ends_no_training(tmp_path: Path, said: Said) -> None:
    asked = []

    def usage() -> tuple[int, int]:
        asked.append(1)
        raise RuntimeError("CUDA error")

    reporter = Reporter(tmp_path, events=True)
    with reporter.speaking(usage, every=0.02):
        await until(lambda: len(asked) > 2, "it was asked again")
    assert not said.progress()


def test_a_person_reads_it_in_one_line(tmp_path: Path, said: Said) -> None:
    reporter = Reporter(tmp_path, events=False)
    reporter.send(
        Progress(
            at=1.0,
            phase="tokenize",
            seconds=12.0,
            done=400,
            total=1000,
            memory_bytes=3 * GIB,
            peak_memory_bytes=4 * GIB,
        )
    )
    step = {"step": 3, "total_steps": 9, "tokens_per_second": 1234.4, "mfu": 0.4321, "eta_seconds": 75.0}
    reporter.send(Progress.model_validate({"at": 1.0, "phase": "epoch 1", "seconds": 61.0, **step}))
    assert said.text.splitlines() == [
        "tokenize: 12s  400 of 1000  3.0 GiB (peak 4.0)",
        "epoch 1: 1m01s  step 3/9  1234 tokens/s  MFU 43.2%  1m15s left",
    ]

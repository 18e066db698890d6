"""Telling a tracker, which may be slow or away, in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from services.trainer.engine.messages import StepDone
from services.trainer.tracking import feed as feeds
from services.trainer.tracking.feed import Feed
from services.trainer.tracking.tracker import Outcome, Run
from shared.retry import Backoff
from tests.support.waiting import until

RUN = Run("ftjob-abc", Path("/nowhere"))


def step(number: int) -> StepDone:
    data = {"step": number, "total_steps": 100, "epoch": number / 100, "learning_rate": 0.1, "tokens": 64}
    return StepDone.model_validate({"at": 1.0, "tokens_per_second": 10.0, "eta_seconds": 1.0, **data})


class FakeTracker:
    """A tracker that is away while `away` is set, and answers nothing while `held` is."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.tries = 0
        self.away = False
        self.answers = threading.Event()
        self.answers.set()

    def begin(self, run: Run, first_step: int) -> None:
        self._call(("begin", run.job_id, first_step))

    def log(self, steps: Sequence[StepDone]) -> None:
        self._call([each.step for each in steps])

    def end(self, outcome: Outcome) -> None:
        self._call(outcome)

    @property
    def steps(self) -> list[int]:
        return [number for call in self.calls if isinstance(call, list) for number in call]

    def _call(self, what: object) -> None:
        self.tries += 1
        self.answers.wait(30)
        if self.away:
            raise ConnectionError("https://user:password@host refused")
        self.calls.append(what)


@pytest.fixture
def tracker() -> Iterator[FakeTracker]:
    tracker = FakeTracker()
    yield tracker
    tracker.answers.set()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "PAUSES", Backoff(0.01, 0.02))


@pytest.fixture
def feed(tracker: FakeTracker) -> Iterator[Feed]:
    feed = Feed("fake", lambda: tracker, pause=0.01)
    feed.begin(RUN)
    yield feed
    tracker.away = False
    feed.end("interrupted")


async def test_every_step_is_told_once_in_order_and_the_run_ends(feed: Feed, tracker: FakeTracker) -> None:
    for number in range(21, 400):
        feed.add(step(number))
    feed.end("completed")
    feed.join(30)
    assert tracker.calls[0] == ("begin", "ftjob-abc", 21)
    assert tracker.steps == list(range(21, 400))
    assert tracker.calls[-1] == "completed"


async def test_a_tracker_that_is_away_is_told_everything_when_it_is_back(feed: Feed, tracker: FakeTracker) -> None:
    feed.add(step(1))
    await until(lambda: tracker.steps == [1], "the first step is told")
    tracker.away = True
    feed.add(step(2))
    tried = tracker.tries
    await until(lambda: tracker.tries > tried + 3, "it is tried again")
    assert feed.trouble == "fake does not take the figures of the training (ConnectionError)", "and no password"
    feed.add(step(3))
    tracker.away = False
    await until(lambda: tracker.steps == [1, 2, 3], "it is told what it missed")


async def test_a_slow_tracker_takes_no_time_of_the_training(feed: Feed, tracker: FakeTracker) -> None:
    tracker.answers.clear()
    began = time.monotonic()
    for number in range(1, 30_000):
        feed.add(step(1) if number == 1 else SECOND)
    assert time.monotonic() - began < 20
    assert len(feed._steps) == feeds.MOST_STEPS, "what waits is bounded"


SECOND = step(2)


async def test_the_end_does_not_wait_for_a_tracker_that_is_away(feed: Feed, tracker: FakeTracker) -> None:
    tracker.away = True
    feed.add(step(1))
    await until(lambda: feed.trouble, "it is away")
    tracker.answers.clear()  # and the next try hangs
    feed.end("completed")
    began = time.monotonic()
    feed.join(30)
    assert time.monotonic() - began < 20


async def test_a_run_without_a_step_leaves_no_trace(feed: Feed, tracker: FakeTracker) -> None:
    feed.end("failed")
    feed.join(30)
    assert tracker.calls == []


async def test_a_client_that_cannot_be_imported_is_a_warning(tracker: FakeTracker) -> None:
    def broken() -> FakeTracker:
        raise ImportError("libsomething.so")

    feed = Feed("fake", broken)
    feed.begin(RUN)
    feed.add(step(1))
    await until(lambda: feed.trouble, "it is told")
    feed.end("completed")

"""Tells one tracker of one training, in a thread, so that a tracker that is slow or away stops nothing."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from itertools import islice

from services.trainer.engine.messages import StepDone
from services.trainer.tracking.tracker import Outcome, Run, Tracker
from shared.retry import Backoff

log = logging.getLogger(__name__)

MOST_STEPS = 20_000
"""Steps that wait for a tracker that is away; the oldest beyond that are dropped."""
MOST_AT_ONCE = 200
PAUSE_SECONDS = 1.0
"""Steps of so long a time are told together."""
PAUSES = Backoff(2.0, 60.0)


class Feed:
    """Tells `make()` of the run: a tracker, which is made in the thread. The run begins with its first step."""

    def __init__(self, name: str, make: Callable[[], Tracker], *, pause: float = PAUSE_SECONDS) -> None:
        self.name = name
        self.trouble: str | None = None
        """Why the tracker takes nothing, once it was so."""
        self._make = make
        self._pause = pause
        self._run: Run | None = None
        self._steps: deque[StepDone] = deque(maxlen=MOST_STEPS)
        self._lock = threading.Lock()
        self._outcome: Outcome | None = None
        self._tracker: Tracker | None = None
        self._begun = False
        self._failures = 0
        self._news = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)

    def begin(self, run: Run) -> None:
        """The run is known; it is announced with its first step."""
        self._run = run
        if not self._thread.is_alive() and not self._over.is_set():
            self._thread.start()

    def add(self, step: StepDone) -> None:
        """A step is done. Costs nothing."""
        with self._lock:
            self._steps.append(step)
        self._news.set()

    def end(self, outcome: Outcome) -> None:
        """The attempt is over: tell what is left. Waits for nothing."""
        self._outcome = outcome
        self._over.set()
        self._news.set()

    def join(self, seconds: float) -> None:
        """Wait until everything is told, for so long at most; for a tracker that is away, not at all."""
        if self._thread.is_alive() and not self._failures:
            self._thread.join(seconds)

    def _work(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            over = self._over.is_set()
            done = self._tell_all(over)
            if over:
                return
            if not done:
                self._over.wait(PAUSES.pause(self._failures))
                self._news.set()
            else:
                self._over.wait(self._pause)

    def _tell_all(self, over: bool) -> bool:
        """Tell what is known. False: the tracker did not take it."""
        try:
            while steps := self._waiting():
                self._tell(steps)
            if over and self._tracker is not None and self._begun and self._outcome is not None:
                self._tracker.end(self._outcome)
        except Exception as error:  # whatever a client raises, the training goes on
            self._failures += 1
            if self.trouble is None:
                # its text may hold addresses with passwords
                self.trouble = f"{self.name} does not take the figures of the training ({type(error).__name__})"
                log.warning("tracker takes nothing", extra={"reason": f"{self.name}: {type(error).__name__}"})
            return False
        self._failures = 0
        return True

    def _waiting(self) -> list[StepDone]:
        with self._lock:
            return list(islice(self._steps, MOST_AT_ONCE))

    def _tell(self, steps: list[StepDone]) -> None:
        assert self._run is not None
        if self._tracker is None:
            self._tracker = self._make()
        if not self._begun:
            self._tracker.begin(self._run, steps[0].step)
            self._begun = True
        self._tracker.log(steps)
        with self._lock:
            for step in steps:  # others may have been dropped meanwhile
                if self._steps and self._steps[0] is step:
                    self._steps.popleft()

"""Tells how far a run is when nothing else is told for a few seconds: while it loads, or within a long step."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from services.trainer.engine.messages import Message, PhaseBegan, Progress
from services.trainer.engine.report.pace import Pace

EVERY_SECONDS = 5.0

Usage = Callable[[], tuple[int, int]]
"""Bytes of memory that the process uses now, and the most so far: of the GPU, else of the host."""


class Speech:
    """What is known of a run at any moment. Within a `with` block, a thread sends a `Progress` whenever `every` seconds
    have passed since the last message; it sends the first when a phase has lasted so long."""

    def __init__(self, send: Callable[[Message], None], usage: Usage, every: float = EVERY_SECONDS) -> None:
        self._send, self._usage, self._every = send, usage, every
        self._phase, self._began = "start", time.monotonic()
        self._heard_at = self._began
        self._done: int | None = None
        self._total: int | None = None
        self._pace: Pace | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="speech", daemon=True)

    def follow(self, pace: Pace) -> None:
        """The training begins; `pace` knows how fast it is."""
        self._pace = pace

    def count(self, done: int, total: int | None = None) -> None:
        """Of what the phase has to do, so much is done."""
        self._done, self._total = done, total

    def heard(self, message: Message) -> None:
        """A message was sent."""
        self._heard_at = time.monotonic()
        if isinstance(message, PhaseBegan):
            self._phase, self._began = message.phase, self._heard_at
            self._done = self._total = None

    def figures(self) -> dict[str, Any]:
        """Memory; and speed, MFU and the time left once a step is done."""
        now, peak = self._usage()
        found: dict[str, Any] = {"memory_bytes": now, "peak_memory_bytes": peak}
        if (pace := self._pace) is not None:
            told = {"eta_seconds": (pace.eta_seconds, 1), "tokens_per_second": (pace.tokens_per_second, 1)}
            told["mfu"] = (pace.mfu, 4)
            found |= {name: round(value, digits) for name, (value, digits) in told.items() if value is not None}
        return found

    def progress(self) -> Progress:
        """How far the run is now."""
        counted: dict[str, Any] = {"done": self._done, "total": self._total}
        if (pace := self._pace) is not None and pace.step:
            counted |= {"step": pace.step, "total_steps": pace.total}
        seconds = round(time.monotonic() - self._began, 1)
        known = {name: value for name, value in (counted | self.figures()).items() if value is not None}
        return Progress.model_validate({"at": time.time(), "phase": self._phase, "seconds": seconds, **known})

    def _run(self) -> None:
        while not self._over.wait(max(0.0, self._heard_at + self._every - time.monotonic())):
            if time.monotonic() - self._heard_at >= self._every:
                # what ends the process is told by the thread that trains
                with contextlib.suppress(Exception):
                    self._send(self.progress())
                self._heard_at = time.monotonic()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

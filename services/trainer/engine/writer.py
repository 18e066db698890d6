"""Writes files beside the training, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Writer:
    """At most one piece of work is under way. What went wrong in it is raised by the next call, once.

    The thread does not keep the process from ending: whoever wants its work waits for it.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def begin(self, work: Callable[[], None]) -> None:
        """Do `work` in the thread, after the work before has ended."""
        self.wait()

        def run() -> None:
            try:
                work()
            except Exception as error:
                self._error = error

        self._thread = threading.Thread(target=run, name="checkpoints", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what went wrong in work that has ended; waits for nothing."""
        if not self.busy:
            self.wait()

    def wait(self) -> None:
        """Wait for the end of the work that is under way."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

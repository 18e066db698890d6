"""Finds and ends processes of a stack whose supervisord is gone, by a mark in their environment. A new start calls this
first."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from cli.stack.plan import MARK
from cli.stack.supervisor import exists

PATIENCE = 15.0  # seconds between SIGTERM and SIGKILL


def find(state: Path) -> list[int]:
    """Process ids that belong to the stack of `state`, grandchildren (vLLM's workers) included.

    This needs /proc. On systems without it nothing is found, and the next start finds its ports taken.
    """
    mark = f"{MARK}={state}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        if pid == os.getpid():
            continue
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # the process has ended, or is another user's
            continue
        if mark in variables and exists(pid):
            found.append(pid)
    return found


def end(state: Path, patience: float = PATIENCE) -> int:
    """End every process of the stack of `state`; returns how many there were. When it returns, all are gone, and their
    ports are free."""
    first = find(state)
    _signal(first, signal.SIGTERM)
    deadline = time.monotonic() + patience
    # a process that is about to end has no environment any more, so `find` does not see it
    while left := sorted({*find(state), *filter(exists, first)}):
        if time.monotonic() > deadline:
            _signal(left, signal.SIGKILL)
        time.sleep(0.1)
    return len(first)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

"""Processes of a stack whose supervisord is gone. A mark in their environment finds them, and a new start ends them."""

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

    This needs /proc. Elsewhere nothing is found, and a second start finds its ports taken.
    """
    mark = f"{MARK}={state}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        if pid == os.getpid():
            continue
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is another user's
            continue
        if mark in variables and exists(pid):
            found.append(pid)
    return found


def end(state: Path, patience: float = PATIENCE) -> int:
    """End every process of the stack of `state`; returns how many there were."""
    first = find(state)
    _signal(first, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while left := find(state):
        if time.monotonic() > deadline:
            _signal(left, signal.SIGKILL)
        time.sleep(0.1)
    return len(first)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

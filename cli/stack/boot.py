"""Starts the programs in waves. A wave starts when the previous one is ready; a program that does not become ready ends
the start."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from cli.stack.config import log_file
from cli.stack.programs import Program
from cli.stack.supervisor import Process, Supervisor
from cli.terminal import CliError

POLL_SECONDS = 0.25
MAX_STARTS = 3
"""A program that ended this often will not become ready by itself."""
TAIL_LINES = 12

Probe = Callable[[], str | None]
"""Tells whether a program is ready: None if so, else a few words on what is missing."""

NO_ANSWER = "does not answer yet"
"""The note of a program of which no more is known."""

State = Literal["waiting", "starting", "ready", "failed"]


class View(Protocol):
    """Shows the progress of a start."""

    def update(self, name: str, state: State, note: str = "") -> None: ...


@dataclass
class NotReady(CliError):
    """A program did not become ready. `tail` holds the last lines of its log."""

    program: str
    reason: str
    tail: list[str]

    def __post_init__(self) -> None:
        super().__init__(f"{self.program} did not come up: {self.reason}", _remedy(self.program, self.tail))


def boot(
    supervisor: Supervisor,
    programs: Sequence[Program],
    probes: Mapping[str, Probe],
    view: View,
    logs: Path,
    *,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Start the programs that do not run. Returns when every program is ready that the stack waits for.

    Raises:
        NotReady: a program ended again and again, or `timeout` seconds were not enough.
    """
    deadline = clock() + timeout
    for _, wave in itertools.groupby(programs, key=lambda program: program.wave):
        waiting = {program.name: program for program in wave}
        starts: dict[str, set[int]] = {name: set() for name in waiting}
        for name in waiting:
            supervisor.start(name)
            view.update(name, "starting")
        while any(program.awaited for program in waiting.values()):
            running = supervisor.processes()
            for name in list(waiting):
                process = running[name]
                note = _note(process) or probes[name]()
                if note is None:
                    del waiting[name]
                    view.update(name, "ready")
                    continue
                view.update(name, "starting", note)
                if not waiting[name].awaited:
                    continue
                starts[name].add(process.started)
                if process.state == "FATAL" or len(starts[name]) > MAX_STARTS - (process.state == "BACKOFF"):
                    view.update(name, "failed", note)
                    raise NotReady(name, f"it ended {len(starts[name])} times", tail(log_file(logs, name)))
                if clock() > deadline:
                    view.update(name, "failed", note)
                    raise NotReady(name, f"{note}; {timeout:.0f} s were not enough", tail(log_file(logs, name)))
            if waiting:
                sleep(POLL_SECONDS)


def _note(process: Process) -> str | None:
    if process.state in ("STARTING", "RUNNING"):
        return None
    return process.error or process.state.lower()


def tail(path: Path, lines: int = TAIL_LINES) -> list[str]:
    """The last lines of a log file; none if the file does not exist."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - lines * 2000))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []


def _remedy(program: str, tail_lines: Sequence[str]) -> str:
    text = "\n".join(tail_lines)
    if "wrong settings" in text:
        return "correct the variable named in its log, in the environment or in .env, and start again"
    if "ddress already in use" in text or "Port allocation failed" in text:
        return "another program took its port; start again, and another port is chosen"
    if "No module named" in text:
        return 'a package is missing: pip install "tunestream[cpu]", or "tunestream[gpu]" with a GPU'
    if "No space left" in text:
        return "free some disk space, or choose another --state directory"
    return f"read `tunestream logs {program}`, fix the cause and start again"

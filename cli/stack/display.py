"""The table of processes that `up` shows: live on a terminal, elsewhere a line per change, and every few seconds one of
what a program that starts is doing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from cli.stack.boot import NO_ANSWER, State

_LOOK: dict[State, tuple[str, str]] = {
    "waiting": ("·", "dim"),
    "starting": ("", "yellow"),
    "ready": ("✓", "green"),
    "failed": ("✗", "bold red"),
}


SAY_SECONDS = 5.0
"""The shortest pause between two lines about one program that is still starting."""


@dataclass
class _Row:
    state: State = "waiting"
    note: str = ""
    since: float | None = None
    took: float | None = None
    said: str = ""
    """The note of the last line, where there is no live table."""
    said_at: float = 0.0
    spinner: Spinner = field(default_factory=lambda: Spinner("dots", style="yellow"))


class BootView:
    """A context manager; `update` may be called from one thread."""

    def __init__(self, console: Console, names: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._rows = {name: _Row() for name in names}
        live = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(get_renderable=self._table, console=console, refresh_per_second=8) if live else None

    def __enter__(self) -> BootView:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def update(self, name: str, state: State, note: str = "") -> None:
        row = self._rows[name]
        if state == "starting" and row.since is None:
            row.since = self._clock()
        if state in ("ready", "failed") and row.took is None:
            row.took = self._clock() - (row.since or self._clock())
        now = self._clock()
        told = note in (row.said, NO_ANSWER) or now - row.said_at < SAY_SECONDS
        changed = row.state != state or not told
        row.state, row.note = state, note
        if changed and not self._live:
            row.said, row.said_at = note, now
            seconds = f" after {row.took:.1f} s" if row.took is not None else ""
            self._console.print(Text(f"{name}: {state}{seconds}{f' ({note})' if note else ''}"), soft_wrap=True)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, row in self._rows.items():
            mark, style = _LOOK[row.state]
            seconds = row.took if row.took is not None else (self._clock() - row.since if row.since else None)
            table.add_row(
                row.spinner if row.state == "starting" else Text(mark, style=style),
                name,
                Text(row.state, style=style),
                Text(f"{seconds:5.1f} s" if seconds is not None else "", style="dim"),
                Text(row.note, style="dim", overflow="ellipsis", no_wrap=True),
            )
        return table

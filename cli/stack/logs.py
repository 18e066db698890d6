"""Reads and follows the log files that supervisord writes and rotates."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from cli.stack.boot import tail
from cli.terminal import CliError

POLL_SECONDS = 0.3


def files(logs: Path, name: str | None) -> dict[str, Path]:
    """The log files by process: that of `name`, or all of them.

    Raises:
        CliError: there is none.
    """
    found = {path.stem: path for path in sorted(logs.glob("*.log"))}
    if not found:
        raise CliError(f"there are no logs in {logs}", "`tunestream up` starts a stack")
    if name is None:
        return {key: path for key, path in found.items() if key != "supervisord"}
    if name not in found:
        raise CliError(f"no process {name}", f"there are {', '.join(found)}")
    return {name: found[name]}


def read(
    paths: Mapping[str, Path], lines: int, follow: bool, sleep: Callable[[float], None] = time.sleep
) -> Iterator[str]:
    """The last lines of each file, then, with `follow`, every new line. Lines of several files begin with its name."""
    prefix = {name: f"{name} | " if len(paths) > 1 else "" for name in paths}
    # opened before the last lines are read: a line may be shown twice, but none is missed
    followed = {name: _Followed(path) for name, path in paths.items()} if follow else {}
    for name, path in paths.items():
        yield from (prefix[name] + line for line in tail(path, lines))
    while followed:
        for name, file in followed.items():
            yield from (prefix[name] + line for line in file.new_lines())
        sleep(POLL_SECONDS)


class _Followed:
    """Follows a file, even when it is rotated."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = self._open()
        self._rest = b""
        if self._file:
            self._file.seek(0, os.SEEK_END)

    def new_lines(self) -> Iterator[str]:
        """The complete lines that were written since the last call."""
        yield from self._lines()
        if self._rotated():
            yield from self._lines()  # the lines that were written after the last read and before the rotation
            if self._file:
                self._file.close()
            self._file = self._open()
            yield from self._lines()

    def _lines(self) -> Iterator[str]:
        if self._file is None:
            return
        *complete, self._rest = (self._rest + self._file.read()).split(b"\n")
        yield from (line.decode(errors="replace") for line in complete)

    def _rotated(self) -> bool:
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return False
        if self._file is None:
            return True
        opened = os.fstat(self._file.fileno())
        return now.st_ino != opened.st_ino or now.st_size < self._file.tell()

    def _open(self) -> BinaryIO | None:
        try:
            return self._path.open("rb")
        except FileNotFoundError:
            return None

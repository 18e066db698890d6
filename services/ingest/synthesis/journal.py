"""The journal of a synthesis, which only grows: what may have been spent and what was answered, kept before anything is
built on it."""

from __future__ import annotations

import asyncio
import fcntl
import os
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from pydantic import ValidationError

from services.ingest.domain.synthesis.history import ENTRY, Entry, History
from shared import disk
from shared.errors import InputError


class Journal(ABC):
    """The entries so far (`history`), and a place for more."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._waiting: list[bytes] = []
        self._asked = self._written = 0
        self._lock = asyncio.Lock()
        self._broken: BaseException | None = None

    async def append(self, *entries: Entry) -> None:
        """Add entries to the history. They are kept for good when this returns; what comes meanwhile is kept together.

        Raises:
            TransientError, ConfigError: they cannot be kept. Then nothing more is.
        """
        for entry in entries:
            self.history.apply(entry)
            self._waiting.append(entry.model_dump_json(exclude_none=True).encode() + b"\n")
        self._asked += len(entries)
        mine = self._asked
        async with self._lock:
            if self._broken:
                raise self._broken
            if self._written >= mine:
                return
            lines, self._waiting = self._waiting, []
            try:
                await self._keep(b"".join(lines))
            except BaseException as error:
                self._broken = error
                raise
            self._written += len(lines)

    @abstractmethod
    async def _keep(self, lines: bytes) -> None:
        """Keep whole lines for good."""


class FileJournal(Journal):
    """A journal on the local disk. One process at a time has it, as long as the block lasts."""

    def __init__(self, path: Path) -> None:
        """Read what is there. A last line without an end, of a process that was killed, is left out: what it announces
        has not begun.

        Raises:
            InputError: a line is no entry, or another process works on it.
        """
        self.path = path
        with disk.writing(path.parent, "--out"):
            self._file: BinaryIO = path.open("ab+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise InputError(
                "synthesis_running", f"{path}: another process works on this synthesis; wait for it"
            ) from None
        self._file.seek(0)
        content = self._file.read()
        *lines, torn = content.split(b"\n")
        super().__init__(read(lines, str(path)))
        if torn:
            os.ftruncate(self._file.fileno(), len(content) - len(torn))

    def __enter__(self) -> FileJournal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    async def _keep(self, lines: bytes) -> None:
        def write() -> None:
            with disk.writing(self.path, "--out"):
                self._file.write(lines)
                self._file.flush()
                os.fsync(self._file.fileno())

        # a stop in the middle must not leave half a line behind
        await asyncio.shield(asyncio.to_thread(write))


def read(lines: list[bytes], where: str) -> History:
    """The history that lines of a journal tell.

    Raises:
        InputError: a line is no entry.
    """
    history = History()
    for number, line in enumerate(lines, 1):
        try:
            history.apply(ENTRY.validate_json(line))
        except ValidationError:
            remedy = "delete it to begin anew; what it cost so far is then not counted"
            raise InputError("invalid_journal", f"{where} line {number}: no entry of a synthesis; {remedy}") from None
    return history

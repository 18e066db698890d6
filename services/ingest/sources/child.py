"""Starts the process that reads a file, and understands what it says."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from services.ingest.sources.limits import Limits
from services.ingest.sources.report import MiningReport
from shared.errors import InputError, TransientError
from shared.events import FrozenModel, Source

LINE_BYTES = 2**24
"""Of an answer: a report holds examples."""


class Request(FrozenModel):
    """What the process is to do."""

    parent: int
    path: str
    out: str
    name: str
    source: Source | None
    limits: Limits
    memory_bytes: int


class Step(FrozenModel):
    rows: int
    share: float


class Failed(FrozenModel):
    """What is wrong with the file."""

    code: str
    message: str
    param: str | None = None


class Answer(FrozenModel):
    """A line that the process says: how far it is, or how it ended."""

    step: Step | None = None
    report: MiningReport | None = None
    failed: Failed | None = None
    disk_full: bool | None = None


async def mine_apart(
    path: Path,
    out: Path,
    *,
    name: str,
    source: Source | None,
    limits: Limits,
    memory_bytes: int,
    on_progress: Callable[[int, float], None],
) -> MiningReport:
    """As `mine`, in a process of its own, which ends when the caller is cancelled.

    Raises:
        InputError: the file cannot be read.
        OSError: the disk is full.
        TransientError: the process was killed.
    """
    request = Request(
        parent=os.getpid(),
        path=str(path),
        out=str(out),
        name=name,
        source=source,
        limits=limits,
        memory_bytes=memory_bytes,
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.ingest.sources",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
        env={name: value for name, value in os.environ.items() if not name.startswith("TUNESTREAM_")},
    )
    try:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(request.model_dump_json().encode() + b"\n")
        await process.stdin.drain()
        while line := await process.stdout.readline():
            answer = Answer.model_validate_json(line)
            if answer.step is not None:
                on_progress(answer.step.rows, answer.step.share)
            elif answer.report is not None:
                return answer.report
            elif answer.failed is not None:
                raise InputError(answer.failed.code, answer.failed.message, answer.failed.param)
            elif answer.disk_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        status = await process.wait()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if status < 0:
        raise TransientError(f"the process that reads the file was killed (signal {-status})")
    raise RuntimeError("the process that reads the file has crashed")  # its last words are in the log

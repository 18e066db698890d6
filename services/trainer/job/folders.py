"""The local folders of attempts: `{work_dir}/{job}/attempt-{n}`, and `attempt-{n}.lock` beside each, which its process
holds. A lock ends with its process however that ends, so what nobody holds is left over from a process that was
killed."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shared import ids
from shared.errors import TransientError

log = logging.getLogger(__name__)

TRIES, TRY_SECONDS = 100, 0.05
_ATTEMPT = re.compile(r"attempt-\d+")


@asynccontextmanager
async def attempt_folder(work_dir: Path, job_id: str, number: int) -> AsyncIterator[Path]:
    """An empty folder for an attempt; it is removed when the block is left.

    Raises:
        TransientError: another process makes the same attempt in the same place.
        OSError: the folder cannot be made.
    """
    folder = work_dir / job_id / f"attempt-{number}"
    descriptor = await _lock_soon(folder)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder
    finally:
        _remove(folder, descriptor)


def remove_unused(work_dir: Path) -> None:
    """Remove the folders of attempts whose process was killed. What does not look like one is left alone."""
    for job in _within(work_dir):
        if not ids.is_job_id(job.name):
            continue
        for name in {path.name.removesuffix(".lock") for path in _within(job)}:
            if not _ATTEMPT.fullmatch(name):
                continue
            try:
                descriptor = _lock(job / name)
            except BlockingIOError:  # somebody works there
                continue
            except OSError as error:
                log.warning("a left-over folder stays", extra={"path": str(job / name), "reason": str(error)})
                continue
            _remove(job / name, descriptor)
            log.info("left-over folder removed", extra={"path": str(job / name)})
        with contextlib.suppress(OSError):  # somebody works there
            job.rmdir()


async def _lock_soon(folder: Path) -> int:
    """Lock a folder that another process may be about to remove."""
    for _ in range(TRIES):
        with contextlib.suppress(BlockingIOError):
            return _lock(folder)
        await asyncio.sleep(TRY_SECONDS)
    raise TransientError(
        f"another process works in {folder}: give each trainer a folder of its own (TUNESTREAM_TRAINER__WORK_DIR)"
    )


def _lock(folder: Path) -> int:
    """Lock a folder, whether it is there or not. Returns the descriptor of the lock; no child process inherits it.

    Raises:
        BlockingIOError: another has it.
    """
    path = _lock_of(folder)
    while True:
        folder.parent.mkdir(parents=True, exist_ok=True)
        descriptor = -1
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        except OSError:
            if descriptor >= 0:
                os.close(descriptor)
            raise
        if descriptor >= 0:  # its last holder has just removed it
            os.close(descriptor)


def _remove(folder: Path, descriptor: int) -> None:
    """Remove a folder that is locked, then its lock."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():  # else the lock says that something is left
        _lock_of(folder).unlink(missing_ok=True)
    os.close(descriptor)
    with contextlib.suppress(OSError):  # another attempt works there
        folder.parent.rmdir()


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _within(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.is_symlink()]
    except OSError:  # nothing was ever written there, or it is a file
        return []

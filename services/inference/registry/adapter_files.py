"""The adapters on the disk: `{folder}/{job}/{digest of its manifest}`, immutable folders that vLLM reads.

The folder is a cache: what nobody needs is deleted, by the policy of `settings.retention`. Other replicas and a
separate vLLM may share it. So whoever uses an adapter sets its time of modification, again and again while it is
loaded; and only that is deleted whose time did not change while this process looked, for `QUIET_SECONDS`. What the
clocks say only decides the order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from services.inference.domain.adapter import SERVED_FILES, config_problems, file_problems
from services.inference.domain.retention import given_up
from services.inference.registry.trained import Objects, Trained
from shared import disk, telemetry
from shared.errors import InputError
from shared.events import Reference
from shared.settings import RetentionSettings

log = logging.getLogger(__name__)

TIDY_SECONDS = 900.0
"""Between two looks at the folder. Each sets the times of the adapters that are in use."""
QUIET_SECONDS = 3 * TIDY_SECONDS
"""How long nobody has touched what is deleted. A download ends after half a minute of silence, and a replica touches
what it has loaded at every look."""
PARTIAL = ".part-"
"""How the name of a folder begins that is being filled, or deleted."""
DAY = 86_400.0
_JOB, _DIGEST = re.compile("ftjob-[a-z0-9]+"), re.compile("[0-9a-f]{64}")


class AdapterFiles:
    """Downloads adapters, and deletes those that nobody needs."""

    def __init__(
        self,
        objects: Objects,
        *,
        folder: Path,
        base: str,
        max_rank: int,
        retention: RetentionSettings,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """`folder` is shared with vLLM. `timer`: seconds that only ever grow."""
        self._objects = objects
        self._folder = folder.resolve()
        self._base = base
        self._max_rank = max_rank
        self._retention = retention
        self._timer = timer
        self._seen: dict[Path, tuple[int, float]] = {}
        """The time of each folder, in ns, and since when this process has seen it unchanged."""

    def path(self, trained: Trained) -> Path:
        return self._folder / trained.job_id / trained.adapter.manifest.sha256

    async def fetch(self, trained: Trained) -> Path:
        """The folder with the two files that vLLM reads. They are downloaded and checked if the folder is not there.

        Raises:
            InputError: it cannot be served here.
            CorruptObject: it is damaged.
            TransientError: the object store is away, or the disk is full.
        """
        with disk.writing(self._folder, "TUNESTREAM_INFERENCE__ADAPTER_DIR"):
            if trained.base != self._base:
                raise _unservable(trained, [f"it was tuned from {trained.base}, served here is {self._base}"])
            path = self.path(trained)
            if not touch(path):
                with telemetry.span("inference.fetch_adapter", attributes={"tunestream.model": trained.model}):
                    await self._download(trained, path)
            return path

    async def _download(self, trained: Trained, path: Path) -> None:
        manifest = json.loads(await self._objects.read(trained.adapter.manifest))
        files: dict[str, Any] = manifest["files"]
        if problems := file_problems(files):
            raise _unservable(trained, problems)
        partial = _make_partial(path.parent)
        try:
            for name in SERVED_FILES:
                await self._objects.download(Reference.model_validate(files[name]), partial / name)
            config = json.loads((partial / "adapter_config.json").read_bytes())
            if problems := config_problems(config, self._max_rank):
                raise _unservable(trained, problems)
            partial.chmod(0o755)  # a separate vLLM server may run as another user
            for name in SERVED_FILES:
                (partial / name).chmod(0o644)
            try:
                partial.rename(path)
            except OSError:
                if not touch(path):  # otherwise another replica was faster with the same bytes
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    # --- what nobody needs ------------------------------------------------------------------------------------

    async def tidy(
        self, in_use: Callable[[], Collection[Path]], named: Callable[[], Awaitable[Collection[Path]]]
    ) -> None:
        """Delete what the policy gives up, and what killed downloads have left. `in_use`: the adapters that this
        process has loaded, loads, or downloads. `named` asks the store for those under an alias; it is only awaited if
        something is to be deleted, and nothing is if it fails.

        Raises:
            TransientError: the object store is away.
            OSError: the disk cannot be read or written.
        """
        if not self._folder.is_dir():
            return
        for path in in_use():
            touch(path)
        adapters, partial = await asyncio.to_thread(self._look)
        for path in partial:
            if self._is_quiet(path):
                await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
                log.info("what a download had left was deleted", extra={"job_id": path.parent.name})
        doomed = [path for path in self._given_up(adapters, in_use()) if self._is_quiet(path)]
        if not doomed:
            return
        needed = set(await named())
        for path in self._given_up(adapters, needed | set(in_use())):
            if path in doomed and path not in in_use():
                await self._delete(path)

    def _given_up(self, adapters: dict[Path, float], needed: Collection[Path]) -> list[Path]:
        most, seconds = self._retention.adapters, self._retention.adapter_days * DAY
        return given_up(adapters, needed, most=most, seconds=seconds)

    def _look(self) -> tuple[dict[Path, float], list[Path]]:
        """The adapters with the seconds since each was used, and the folders that are being filled or deleted. What
        else is in the folder is not ours."""
        now = self._now()
        adapters: dict[Path, float] = {}
        partial: list[Path] = []
        seen: dict[Path, tuple[int, float]] = {}
        for path in self._ours():
            with contextlib.suppress(FileNotFoundError):  # another replica has just finished or deleted it
                modified = _modified(path)
                known = self._seen.get(path)
                seen[path] = known if known is not None and known[0] == modified else (modified, self._timer())
                if path.name.startswith(PARTIAL):
                    partial.append(path)
                else:
                    adapters[path] = (now - modified) / 1e9
        self._seen = seen
        return adapters, partial

    def _ours(self) -> Iterator[Path]:
        for job in sorted(self._folder.iterdir()):
            if _JOB.fullmatch(job.name) and job.is_dir() and not job.is_symlink():
                for path in sorted(job.iterdir()):
                    ours = path.name.startswith(PARTIAL) or _DIGEST.fullmatch(path.name)
                    if ours and path.is_dir() and not path.is_symlink():
                        yield path

    def _now(self) -> int:
        """By the clock that sets the times of the folder, which may be another machine's."""
        with tempfile.TemporaryFile(dir=self._folder) as file:
            return os.fstat(file.fileno()).st_mtime_ns

    def _is_quiet(self, path: Path) -> bool:
        return path in self._seen and self._timer() - self._seen[path][1] >= QUIET_SECONDS

    async def _delete(self, path: Path) -> None:
        aside = path.with_name(PARTIAL + path.name)
        with contextlib.suppress(OSError):
            path.rename(aside)  # from here on, who looks for it downloads it again
            if aside.stat().st_mtime_ns != self._seen[path][0]:
                aside.rename(path)  # somebody has begun to use it since the look
                return
            await asyncio.to_thread(shutil.rmtree, aside)
            log.info("an adapter that nobody needs was deleted from the disk", extra={"job_id": path.parent.name})
            path.parent.rmdir()  # unless it holds another one


def touch(path: Path) -> bool:
    """Note that the adapter is used now. Whether it is there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except PermissionError:  # it is another user's, who keeps it
        return path.is_dir()
    return True


def _modified(path: Path) -> int:
    """When the folder was used, in ns; of one that is being filled, when anything in it was written."""
    times = [path.stat().st_mtime_ns]
    if path.name.startswith(PARTIAL):
        times += [file.stat().st_mtime_ns for file in path.iterdir()]
    return max(times)


def _make_partial(parent: Path) -> Path:
    for _ in range(10):
        parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another replica has just deleted the last adapter of this job
            return Path(tempfile.mkdtemp(dir=parent, prefix=PARTIAL))
    raise FileNotFoundError(parent)


def _unservable(trained: Trained, problems: list[str]) -> InputError:
    return InputError(
        "model_not_servable", f"The model `{trained.model}` cannot be served: {'; '.join(problems)}.", "model"
    )

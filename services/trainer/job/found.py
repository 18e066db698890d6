"""The checkpoints of earlier attempts in the object store, below `jobs/{job}/trainer/attempt-{n}/`.

    resume/step-{s}/        a clock checkpoint: the state of a run, only to continue from; buried as soon as a newer one
                            is there
    checkpoints/step-{s}/   a listed one: the adapter at the end of an epoch; a model of its own, which lives as long as
                            its job

A listed checkpoint needs no state. Wherever one is made, a clock checkpoint of the same step follows it, so nothing
would be gained but two more copies of the adapter's size (the optimizer's moments) for as long as the job lives. Older
versions wrote the state into `checkpoints/`: such a folder may be continued from, and is not listed, because it is no
model.

A folder without a manifest is incomplete, or half deleted: the janitor deletes the manifest first.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.errors import AlreadyExists
from shared.events import FolderReference, Tombstone
from shared.stages.ledger import DELETED, attempt_prefix, tombstone_key
from shared.store.folders import folder_reference, manifest_key
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)

RESUME, LISTED = "resume", "checkpoints"
"""The folders of an attempt that its checkpoints are in, on the disk and in the store."""
STATE = "state.json"
SERVED = {"adapter_config.json", "adapter_model.safetensors"}
KIND = "checkpoints"  # of tombstones
_KEY = re.compile(r"(jobs/([^/]+)/trainer/attempt-(\d+)/)(resume|checkpoints)/step-(\d+)/.+")


@dataclass(frozen=True, order=True)
class Clock:
    """A clock checkpoint."""

    step: int
    attempt: int
    job_id: str

    @property
    def prefix(self) -> str:
        return f"{attempt_prefix(self.job_id, 'trainer', self.attempt)}{RESUME}/step-{self.step}/"

    @property
    def tombstone(self) -> str:
        return tombstone_key(KIND, f"{self.job_id}-{self.attempt}-{self.step}")

    async def bury(self, objects: ObjectStore, reason: str) -> None:
        """Say that it may be deleted. From here on nobody continues from it."""
        tombstone = Tombstone(prefix=self.prefix, reason=reason, at=objects.now())
        with contextlib.suppress(AlreadyExists):  # said before
            await objects.create(self.tombstone, tombstone.model_dump_json().encode())


@dataclass
class Found:
    """What earlier attempts left in the store."""

    states: list[tuple[int, FolderReference]] = field(default_factory=list)
    """What a run may be continued from: steps and folders, the newest step first; of one step, the newest attempt."""
    listed: dict[int, FolderReference] = field(default_factory=dict)
    """By step; if two attempts have the same, that of the newer one."""
    clocks: list[Clock] = field(default_factory=list)
    """All clock checkpoints, whether complete or not; the best is the last."""


async def find_checkpoints(objects: ObjectStore, attempts: Sequence[str]) -> Found:
    """The checkpoints of earlier attempts. `attempts`: their prefixes, newest first.

    Raises:
        StoreUnavailable: the store is away.
    """
    found = Found()
    incomplete: list[Clock] = []
    for clock, prefix in await _folders(objects, attempts):
        manifest = await objects.get(manifest_key(prefix))
        if prefix == clock.prefix:
            (incomplete if manifest is None else found.clocks).append(clock)
        if manifest is None:
            continue
        folder, files = folder_reference(objects.bucket, prefix, *manifest), _files(prefix, manifest[0])
        if STATE in files:
            found.states.append((clock.step, folder))
        if prefix != clock.prefix and files >= SERVED:
            found.listed.setdefault(clock.step, folder)
    found.states.sort(key=lambda state: -state[0])
    found.clocks = [*sorted(incomplete), *sorted(found.clocks)]
    return found


async def _folders(objects: ObjectStore, attempts: Sequence[str]) -> list[tuple[Clock, str]]:
    """The folders of checkpoints of `attempts`, in their order, without what is buried: step, attempt and job of each,
    and its prefix. One listing finds those of all attempts at a job: a job that waited for long has hundreds."""
    found: dict[str, tuple[int, Clock]] = {}
    places = {attempt: place for place, attempt in enumerate(attempts)}
    for stage in dict.fromkeys(attempt[: attempt.rindex("attempt-")] for attempt in attempts):
        buried = {entry.key for entry in await objects.list(f"{DELETED}{KIND}/{stage.split('/')[1]}-")}
        for entry in await objects.list(f"{stage}attempt-"):
            match = _KEY.fullmatch(entry.key)
            if match is None or match[1] not in places:
                continue
            clock = Clock(step=int(match[5]), attempt=int(match[3]), job_id=match[2])
            if match[4] == LISTED or clock.tombstone not in buried:
                found[f"{match[1]}{match[4]}/step-{match[5]}/"] = (places[match[1]], clock)
    in_order = sorted(found.items(), key=lambda item: item[1][0])
    return [(clock, prefix) for prefix, (_, clock) in in_order]


def _files(prefix: str, manifest: bytes) -> set[str]:
    try:
        return set(json.loads(manifest)["files"])
    except (ValueError, KeyError, TypeError):
        log.warning("the manifest of a checkpoint cannot be read", extra={"key": prefix})
        return set()

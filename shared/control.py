"""What the user of a job wants: `cancel-1.json`, `pause-{n}.json` and `resume-{n}.json` in its folder `control/`, each
created once. See docs/architecture.md, "The stage protocol".

A job is paused while its last pause has no resume of the same number. A pause gets the next number only after the
resume of the one before is there, so whoever lists the folder gets the same answer, in whatever order clients ask. A
cancel wins over both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from shared import ids
from shared.errors import AlreadyExists
from shared.stages.ledger import Ledger, control_prefix

Action = Literal["cancel", "pause", "resume"]
ACTIONS: tuple[Action, ...] = ("cancel", "pause", "resume")


@dataclass(frozen=True)
class Control:
    """Everything that the user has asked for. `pauses`, `resumes`: when each number was asked for, in seconds since the
    epoch by the ledger's clock."""

    cancelled: bool = False
    pauses: Mapping[int, float] = field(default_factory=dict)
    resumes: Mapping[int, float] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """The number of the last pause; 0: there was none."""
        return max(self.pauses, default=0)

    @property
    def paused(self) -> bool:
        """Whether the job rests until it is resumed."""
        return not self.cancelled and self.last > 0 and self.last not in self.resumes

    @property
    def resumed(self) -> bool:
        """Whether the job has rested, and was told to go on."""
        return not self.cancelled and self.last in self.resumes


async def read(ledger: Ledger, job_id: str) -> Control:
    """What the user of a job wants, by one listing. Raises like the ledger."""
    prefix = control_prefix(job_id)
    found: dict[str, dict[int, float]] = {action: {} for action in ACTIONS}
    for entry in await ledger.list(prefix):
        action, _, number = entry.key.removeprefix(prefix).removesuffix(".json").partition("-")
        if action in found and number.isascii() and number.isdecimal() and len(number) < 10:
            found[action][int(number)] = entry.modified
    return Control(bool(found["cancel"]), found["pause"], found["resume"])


async def cancel(ledger: Ledger, job_id: str) -> None:
    """Let the job end. There is one cancellation per job. Raises like the ledger."""
    await _note(ledger, job_id, "cancel", 1)


async def pause(ledger: Ledger, job_id: str) -> int | None:
    """Let the job rest. Returns the number of the pause, which may be another client's; None: the job is cancelled.
    Raises like the ledger."""
    wanted = await read(ledger, job_id)
    if wanted.cancelled:
        return None
    if wanted.paused:
        return wanted.last
    await _note(ledger, job_id, "pause", wanted.last + 1)
    return wanted.last + 1


async def resume(ledger: Ledger, job_id: str) -> int | None:
    """Let a paused job go on. Returns the number of the pause that ends; None: the job is not paused. Raises like the
    ledger."""
    wanted = await read(ledger, job_id)
    if not wanted.paused:
        return None
    await _note(ledger, job_id, "resume", wanted.last)
    return wanted.last


async def _note(ledger: Ledger, job_id: str, action: Action, number: int) -> None:
    key = f"{control_prefix(job_id)}{action}-{number}.json"
    with contextlib.suppress(AlreadyExists):
        await ledger.create(key, ids.canonical({"at": ledger.now(), "by": "api"}))

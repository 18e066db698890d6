"""What the janitor writes down, so that a restart does not begin again."""

from __future__ import annotations

from pydantic import ValidationError

from shared.events import FrozenModel
from shared.store.objects import ObjectStore

CLAIM = "janitor/claim.json"
SWEPT = "janitor/swept.json"
MOST_AGAIN = 1000
"""Jobs to be looked at again; if there are more, the next sweep looks at all."""


class Swept(FrozenModel):
    """`janitor/swept.json`: when the last sweep began, what it had decided by, and what it left undecided."""

    at: float
    """When it began, in seconds since the epoch, by the clock of the object store."""
    kept_until: float = 0.0
    """Jobs that had nothing to delete by then, and have not changed since, need no second look."""
    policy: str = ""
    """A digest of the retention policy. By another policy all jobs are looked at."""
    again: tuple[str, ...] = ()
    """Jobs of which something stays only for now: a retry of them is under way, for example."""


async def read_swept(objects: ObjectStore) -> Swept | None:
    """The last sweep; None: there was none, or nobody can read of it. Then everything is looked at."""
    found = await objects.get(SWEPT)
    try:
        return Swept.model_validate_json(found[0]) if found else None
    except ValidationError:
        return None


async def write_swept(objects: ObjectStore, swept: Swept) -> None:
    if len(swept.again) > MOST_AGAIN:
        swept = swept.model_copy(update={"again": (), "kept_until": 0.0})
    await objects.put(SWEPT, swept.model_dump_json().encode())

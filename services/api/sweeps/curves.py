"""The validation losses of a training, by how much of it was done: of one that is under way from the projection, of one
that is done from its `metrics.jsonl`, which outlives the topics."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable

from services.api.database import ProjectionDatabase
from services.api.domain.projection import is_number
from services.api.domain.state import JobState
from services.api.domain.sweeps.standing import Point
from shared import strict_json
from shared.errors import CorruptObject
from shared.events import TrainingCompleted
from shared.store.objects import ObjectStore

METRICS = "metrics.jsonl"
MOST_POINTS = 120
"""Of one training; of more every second one is left out, until it is fewer."""


class Curves:
    """Reads them. What a training has left is read once."""

    def __init__(self, objects: ObjectStore, database: ProjectionDatabase) -> None:
        self._objects = objects
        self._database = database
        self._known: dict[str, tuple[Point, ...]] = {}

    async def of(self, state: JobState) -> tuple[Point, ...]:
        """The validations of a training, in order.

        Raises:
            StoreUnavailable, ConfigError, StoreRefused: the store does not answer, or refuses it.
            DatabaseBroken: the database does not work.
        """
        if state.job_id in self._known:
            return self._known[state.job_id]
        points = await self._told(state.job_id)
        if trained := state.event_of(TrainingCompleted):
            points = await self._left(trained) or points
        if state.final_outcome:
            self._known[state.job_id] = points
        return points

    async def _told(self, job_id: str) -> tuple[Point, ...]:
        query = "SELECT data FROM messages WHERE job_id = ? AND type = 'metrics' ORDER BY position"

        def select(connection: sqlite3.Connection) -> tuple[Point, ...]:
            return points_of(text for (text,) in connection.execute(query, (job_id,)))

        return await self._database.read(select)

    async def _left(self, trained: TrainingCompleted) -> tuple[Point, ...]:
        if (reference := trained.artifacts.get(METRICS)) is None:
            return ()
        try:
            data = await self._objects.read(reference)
        except CorruptObject:  # a missing curve must not end a sweep
            return ()
        return await asyncio.to_thread(lambda: points_of(data.splitlines()))


def points_of(rows: Iterable[str | bytes]) -> tuple[Point, ...]:
    """The validations in rows with `step`, `total_steps` and `valid_loss`. A step that was done again counts as it came
    last."""
    found: dict[float, float] = {}
    for row in rows:
        try:
            data = strict_json.loads(row)
        except strict_json.InvalidJson:
            continue
        if not isinstance(data, dict):
            continue
        step, total, loss = (data.get(name) for name in ("step", "total_steps", "valid_loss"))
        if is_number(step) and is_number(total) and is_number(loss) and 0 < step <= total:
            found[step / total] = loss
    points = [Point(fraction=fraction, valid_loss=loss) for fraction, loss in sorted(found.items())]
    while len(points) > MOST_POINTS:
        points = [*points[:-1:2], points[-1]]
    return tuple(points)

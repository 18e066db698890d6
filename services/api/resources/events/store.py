"""Lists the history of a job from the projection."""

from __future__ import annotations

import sqlite3
from typing import Any, Literal

from services.api.database import Page, ProjectionDatabase
from services.api.domain.messages import Message
from shared import strict_json


async def list_messages(
    database: ProjectionDatabase, job_id: str, *, limit: int, after: str | None, order: Literal["asc", "desc"]
) -> Page[Message] | None:
    """A job's history behind the message `after`; None when it has no such message.

    Raises:
        DatabaseBroken: the database does not work.
    """

    def select(connection: sqlite3.Connection) -> Page[Message] | None:
        where, values = "job_id = :job_id", dict[str, Any](job_id=job_id, limit=limit + 1)
        if after is not None:
            cursor = "SELECT position FROM messages WHERE job_id = ? AND id = ?"
            found = connection.execute(cursor, (job_id, after)).fetchone()
            if found is None:
                return None
            where += f" AND (position, id) {'>' if order == 'asc' else '<'} (:position, :after)"
            values.update(position=found[0], after=after)
        rows = connection.execute(
            f"SELECT id, at, level, type, message, data FROM messages WHERE {where} "
            f"ORDER BY position {order}, id {order} LIMIT :limit",
            values,
        ).fetchall()
        messages = [
            Message(id=id_, at=at, level=level, type=type_, message=message, data=_data(data))
            for id_, at, level, type_, message, data in rows[:limit]
        ]
        return Page(messages, len(rows) > limit)

    return await database.read(select)


def _data(text: str) -> dict[str, Any]:
    """Empty if it cannot be read: the message beside it says the same in words."""
    try:
        found = strict_json.loads(text)
    except strict_json.InvalidJson:
        return {}
    return found if isinstance(found, dict) else {}

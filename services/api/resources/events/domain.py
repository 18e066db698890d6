"""A message of a job's history as the JSON object that the API answers."""

from __future__ import annotations

from typing import Any

from services.api.domain.messages import Message


def event_view(message: Message) -> dict[str, Any]:
    return {
        "id": message.id,
        "object": "job.event",
        "created_at": int(message.at),
        "level": message.level,
        "type": message.type,
        "message": message.message,
        "data": message.data,
    }

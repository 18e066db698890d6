"""A message of a job's history as the JSON object that the API answers."""

from __future__ import annotations

from typing import Any

from services.api.domain.messages import Message
from services.api.resources.lists import whole_seconds


def event_view(message: Message) -> dict[str, Any]:
    return {
        "id": message.id,
        "object": "job.event",
        "created_at": whole_seconds(message.at),
        "level": message.level,
        "type": message.type,
        "message": message.message,
        "data": message.data,
    }

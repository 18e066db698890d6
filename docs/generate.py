"""Writes `docs/schemas/` and `docs/asyncapi.json` from `shared/events.py`, and `docs/metrics.md` from the metrics of
the services; a test holds them to it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from docs import metrics
from shared.events import EVENTS, Event

HERE = Path(__file__).parent

HEADERS = {
    "type": "object",
    "description": "CloudEvents 1.0, Kafka binary mode. All of them may be missing on events from outside.",
    "properties": {
        "ce_specversion": {"const": "1.0"},
        "ce_id": {"type": "string", "description": "the same on every delivery of the same event"},
        "ce_type": {"type": "string"},
        "ce_source": {"type": "string"},
        "ce_time": {"type": "string", "format": "date-time"},
        "ce_subject": {"type": "string", "description": "the job id, also the record's key"},
        "traceparent": {"type": "string", "description": "W3C trace context of the job"},
    },
}


def schema(event: type[Event]) -> dict[str, Any]:
    return {"$id": f"{event.ce_type()}.json", **event.model_json_schema()}


def asyncapi() -> dict[str, Any]:
    """AsyncAPI 3.0: one channel per topic, its message by reference to the schema beside it."""
    channels = {
        event.topic: {
            "address": event.topic,
            "description": inspect.getdoc(event) if event.__doc__ != Event.__doc__ else None,
            "messages": {
                event.__name__: {
                    "name": event.ce_type(),
                    "contentType": "application/json",
                    "headers": {"$ref": "#/components/schemas/Headers"},
                    "payload": {"$ref": f"schemas/{event.topic}.v1.json"},
                }
            },
        }
        for event in EVENTS
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Tunestream", "version": "1", "description": "Every event on the bus."},
        "defaultContentType": "application/json",
        "channels": {
            name: {key: value for key, value in channel.items() if value} for name, channel in channels.items()
        },
        "components": {"schemas": {"Headers": HEADERS}},
    }


def documents() -> dict[str, str]:
    """Every generated file by its path below `docs/`."""
    files: dict[str, Any] = {f"schemas/{event.topic}.v1.json": schema(event) for event in EVENTS}
    files["asyncapi.json"] = asyncapi()
    texts = {name: json.dumps(content, indent=2, sort_keys=True) + "\n" for name, content in files.items()}
    return {**texts, "metrics.md": metrics.page()}


def main() -> None:
    for name, text in documents().items():
        path = HERE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()

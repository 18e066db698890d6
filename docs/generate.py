"""Writes `docs/schemas/`, `docs/asyncapi.json` and the tables of `docs/events.md` from `shared/events/`,
`docs/metrics.md` from the metrics of the services, `docs/openapi/` from their routes, and the table of
`docs/hardware.md` from the plan of a training. A test fails when they
differ."""

from __future__ import annotations

import inspect
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from docs import metrics, openapi, tables
from services.trainer.estimate import table
from shared.events import EVENTS, Event

HERE = Path(__file__).parent
MARKED = re.compile(r"(<!-- generated: (\S+) -->).*?(<!-- end -->)", re.DOTALL)
KAFKA_BINDING = "0.5.0"
KEY = {"type": "string", "description": "the job id; a stranger's may be anything, or missing"}

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
    """The AsyncAPI 3.0 document, from Tunestream's side. Each topic is a channel, whose message refers to a schema
    file."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tunestream",
            "version": "1",
            "description": "Every event on the bus. How to send and read them as a stranger: docs/events.md.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {event.topic: _channel(event) for event in EVENTS},
        "operations": {name: operation for event in EVENTS for name, operation in _operations(event).items()},
        "components": {"schemas": {"Headers": HEADERS}},
    }


def _channel(event: type[Event]) -> dict[str, Any]:
    return {
        "address": event.topic,
        "description": inspect.getdoc(event),
        "messages": {
            event.__name__: {
                "name": event.ce_type(),
                "contentType": "application/json",
                "headers": {"$ref": "#/components/schemas/Headers"},
                "payload": {"$ref": f"schemas/{event.topic}.v1.json"},
                "bindings": {"kafka": {"key": KEY, "bindingVersion": KAFKA_BINDING}},
            }
        },
        "bindings": {"kafka": {"topic": event.topic, "bindingVersion": KAFKA_BINDING}},
    }


def _operations(event: type[Event]) -> dict[str, Any]:
    """`send` if one of our services publishes the event, `receive` if other programs may."""
    ours = [service for service in event.sent_by if service != "anyone"]
    actions = (["send"] if ours else []) + (["receive"] if "anyone" in event.sent_by else [])
    return {
        f"{action}.{event.topic}": {"action": action, "channel": {"$ref": f"#/channels/{event.topic}"}}
        for action in actions
    }


def page() -> str:
    """`docs/events.md` with its generated tables. The prose around them is written by hand."""
    made = {"topics": tables.topics(), **{event.topic: tables.fields(event) for event in EVENTS}}
    return _filled("events.md", made)


def hardware() -> str:
    """`docs/hardware.md` with its generated table."""
    return _filled("hardware.md", {"hardware": f"{table.markdown()}\n\n{table.EXPLAINED}"})


def _filled(name: str, made: dict[str, str]) -> str:
    return MARKED.sub(lambda found: f"{found[1]}\n{made[found[2]]}\n{found[3]}", (HERE / name).read_text())


@cache
def documents() -> dict[str, str]:
    """Every generated file by its path below `docs/`."""
    files: dict[str, Any] = {f"schemas/{event.topic}.v1.json": schema(event) for event in EVENTS}
    files["asyncapi.json"] = asyncapi()
    files |= {f"openapi/{service}.json": document for service, document in openapi.documents().items()}
    texts = {name: json.dumps(content, indent=2, sort_keys=True) + "\n" for name, content in files.items()}
    return {**texts, "events.md": page(), "metrics.md": metrics.page(), "hardware.md": hardware()}


def main() -> None:
    for name, text in documents().items():
        path = HERE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()

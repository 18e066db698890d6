"""CloudEvents 1.0 in Kafka binary mode: the value is the event's data, everything about it is in `ce_*` headers.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from shared import strict_json
from shared.events import Event

Headers = list[tuple[str, bytes]]

DLQ_SUFFIX = ".dlq"
"""`{topic}.dlq` holds the records of a topic that could not be handled."""
DLQ_PREFIX = "dlq_"
"""The names of headers that the bus adds to a dead letter begin so."""


def headers(
    event: Event, *, ce_id: str, source: str, subject: str | None, time: float, traceparent: str | None
) -> Headers:
    """`source` is the service, `subject` the job id, `time` seconds since the epoch."""
    fields = {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_id": ce_id,
        "ce_type": event.ce_type(),
        "ce_source": f"/tunestream/{source}",
        "ce_time": datetime.fromtimestamp(time, UTC).isoformat(),
        "ce_subject": subject,
        "traceparent": traceparent,
    }
    return [(name, value.encode()) for name, value in fields.items() if value is not None]


def dead_letter_headers(
    topic: str, partition: int, offset: int, *, reason: str, group: str, field: str | None = None
) -> Headers:
    """Where a dead letter comes from, the service that could not handle it, why, and which field is wrong."""
    fields = {
        "reason": reason,
        "topic": topic,
        "partition": str(partition),
        "offset": str(offset),
        "group": group,
        "field": field,
    }
    return [(DLQ_PREFIX + name, value.encode()) for name, value in fields.items() if value is not None]


def body(event: Event) -> bytes:
    return event.model_dump_json(exclude_none=True).encode()


def parse(value: bytes | None) -> Any:
    """Parse the value of a record as JSON.

    Raises:
        InvalidJson: it is not JSON, or not such as every reader understands.
    """
    return strict_json.loads(value or b"")


def decode(raw: tuple[tuple[str, bytes], ...]) -> dict[str, str]:
    """Headers as text. Bytes that are not UTF-8 become U+FFFD: one odd header must not lose the event."""
    return {name: (value or b"").decode("utf-8", errors="replace") for name, value in raw}


def time_of(fields: Mapping[str, str]) -> float | None:
    """`ce_time` in seconds since the epoch; None when it is missing or not a time."""
    try:
        return datetime.fromisoformat(fields.get("ce_time", "")).timestamp()
    except (ValueError, OverflowError):
        return None

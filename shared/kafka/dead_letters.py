"""Dead letters: records that could not be handled, kept byte for byte in `{topic}.dlq`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import cache
from itertools import takewhile
from typing import Any

from pydantic import ValidationError

from shared.errors import InputError, TransientError
from shared.events import Event
from shared.kafka import envelope
from shared.kafka.envelope import DLQ_SUFFIX
from shared.kafka.producer import Outgoing

log = logging.getLogger(__name__)

Send = Callable[[str, Outgoing], Awaitable[None]]
"""Sends a record under an identity, as `Producer.send` does."""


async def write(send: Send, record: Any, error: Exception, *, group: str, event_type: type[Event] | None) -> None:
    """Write the dead letter of `record`, which `group` could not handle because of `error`.

    Raises:
        TransientError: the bus is away.
    """
    ours = envelope.dead_letter_headers(
        record.topic,
        record.partition,
        record.offset,
        reason=type(error).__name__,
        group=group,
        field=field_of(error, event_type) if event_type else None,
    )
    topic = record.topic + DLQ_SUFFIX
    identity = f"{topic}/{record.partition}/{record.offset}"
    # other clients send records that have neither key nor value; aiokafka refuses to send them
    value = b"" if record.key is None and record.value is None else record.value
    try:
        await send(identity, Outgoing(topic, value, record.key, [*record.headers, *ours]))
    except TransientError:
        raise
    except Exception as refused:
        # the record came compressed, or its topic allows larger ones. Only its place is kept, because a dead letter
        # that cannot be written would block all records after it
        log.warning("a dead letter keeps only its place", extra={"topic": topic, "reason": type(refused).__name__})
        await write_place(send, record.topic, record.partition, record.offset, ours, str(len(record.value or b"")))


async def write_place(
    send: Send, topic: str, partition: int, offset: int, ours: envelope.Headers, omitted: str
) -> None:
    """Write a dead letter that holds only the place of a record. `omitted`: its size in bytes, or why it was omitted.

    Raises:
        TransientError: the bus is away.
    """
    letter = Outgoing(topic + DLQ_SUFFIX, b"", None, [*ours, (envelope.DLQ_PREFIX + "omitted", omitted.encode())])
    try:
        await send(f"{letter.topic}/{partition}/{offset}/place", letter)
    except TransientError:
        raise
    except Exception as refused:
        # the record itself still lies in its topic
        log.error(
            "no dead letter can be written",
            extra={"topic": letter.topic, "reason": type(refused).__name__, "offset": offset},
        )


def field_of(error: Exception, event_type: type[Event]) -> str | None:
    """The field of the event that is wrong, such as `spec.learning_rate`; None if it is not known.

    Only names that the event defines are given: a path may hold what the sender wrote, such as an unknown name.
    """
    path: tuple[int | str, ...] = ()
    if isinstance(error, ValidationError):
        path = error.errors(include_url=False, include_input=False, include_context=False)[0]["loc"]
    elif isinstance(error, InputError) and error.param:
        path = tuple(error.param.split("."))
    known = _fields(event_type)
    names = takewhile(lambda part: isinstance(part, int) or part in known, path)
    return ".".join(map(str, names)) or None


@cache
def _fields(event_type: type[Event]) -> frozenset[str]:
    """The names of all fields of an event, and of the models in it."""
    schema = event_type.model_json_schema()
    models = [schema, *schema.get("$defs", {}).values()]
    return frozenset(name for model in models for name in model.get("properties", {}))

"""A dead letter: the record that a service could not handle, and the headers that the bus added."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from cli.terminal import printable
from shared.events import BY_TOPIC
from shared.jobs.explain import explained
from shared.kafka import envelope
from shared.kafka.envelope import DLQ_PREFIX, DLQ_SUFFIX
from shared.strict_json import InvalidJson


@dataclass(frozen=True)
class Letter:
    """One record of a dead-letter topic. `time` is in seconds since the epoch; key and value are the original's."""

    topic: str
    offset: int
    time: float
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    @property
    def source(self) -> str:
        """The topic of the original record. It is not taken from a header, because a replay is sent to this topic, and
        any sender can write headers."""
        return self.topic.removesuffix(DLQ_SUFFIX)

    @property
    def reason(self) -> str:
        return self.header("reason")

    @property
    def place(self) -> str:
        """The place of the original record, as `topic/partition@offset`."""
        return f"{self.source}/{self.header('partition')}@{self.header('offset')}"

    @property
    def own_headers(self) -> list[tuple[str, bytes]]:
        """The headers of the original record."""
        return [(name, value) for name, value in self.headers if not name.startswith(DLQ_PREFIX)]

    @property
    def omitted(self) -> bool:
        """Whether the record was too large for a dead letter, or could not be taken apart: only its place is kept."""
        return bool(self.header("omitted"))

    def header(self, name: str) -> str:
        """A header that the bus added, by its name without `dlq_`. If there are several, the last one counts, because
        the sender may have used the name, too."""
        return envelope.decode(self.headers).get(DLQ_PREFIX + name, "")

    @cached_property
    def digest(self) -> bytes:
        """Identifies the message: however often it became a dead letter, the digest is the same."""
        told = repr((self.source, self.key, self.value, self.own_headers))
        return hashlib.sha256(told.encode()).digest()

    @cached_property
    def problems(self) -> tuple[str, ...]:
        """What this version finds wrong with the value; empty if it could read a replay."""
        if self.omitted:
            omitted = self.header("omitted")
            if not omitted.isdecimal():
                return (f"the record cannot be decompressed or taken apart; it lies at {self.place}",)
            return (f"the record of {omitted} bytes was too large to be kept; it lies at {self.place}",)
        event_type = BY_TOPIC.get(self.source)
        if event_type is None:
            return (f"no event is called {self.source}",)
        try:
            event_type.model_validate(envelope.parse(self.value))
        except ValidationError as error:
            return tuple(f"{wrong.field or 'value'}: {wrong.reason}" for wrong in explained(error, event_type))
        except InvalidJson as error:
            return (f"not JSON: {error}",)
        return ()


@dataclass
class Summary:
    """Counts the letters of one topic."""

    topic: str
    letters: int = 0
    readable: int = 0
    """How many letters this version could read."""
    first: int | None = None
    last: int | None = None
    """Offsets."""
    newest: float | None = None
    reasons: Counter[str] = field(default_factory=Counter)
    _digests: set[bytes] = field(default_factory=set)

    def add(self, letter: Letter) -> None:
        """Count a letter; letters come in the order of their offsets."""
        self.letters += 1
        self.readable += not letter.problems
        self.first = letter.offset if self.first is None else self.first
        self.last = letter.offset
        self.newest = max(self.newest or 0.0, letter.time)
        self.reasons[letter.reason or "?"] += 1
        self._digests.add(letter.digest)

    @property
    def messages(self) -> int:
        """How many different messages there are: every service that reads a topic writes its own letter of a record."""
        return len(self._digests)

    def document(self) -> dict[str, Any]:
        """The summary as JSON, for `dlq list --json`."""
        return {
            "topic": self.topic,
            "letters": self.letters,
            "messages": self.messages,
            "readable": self.readable,
            "first": self.first,
            "last": self.last,
            "newest": self.newest,
            "reasons": dict(self.reasons),
        }


def pretty(value: bytes | None) -> str:
    """Indented JSON if the value is JSON, else its text, with escapes for bytes that are not UTF-8."""
    try:
        return printable(json.dumps(envelope.parse(value), indent=2, ensure_ascii=False))
    except InvalidJson:
        return printable((value or b"").decode("utf-8", errors="backslashreplace"))

"""A dead letter: the record that a service could not handle, and what the bus wrote beside it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from shared import envelope
from shared.envelope import DLQ_SUFFIX
from shared.events import BY_TOPIC

PREFIX = "dlq_"


@dataclass(frozen=True)
class Letter:
    """`topic` is the dead-letter topic, `time` in seconds since the epoch; key, value and headers are as they came."""

    topic: str
    offset: int
    time: float
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    @property
    def source(self) -> str:
        """The topic that it came from. Not the header's word: it is where a replay goes."""
        return self.topic.removesuffix(DLQ_SUFFIX)

    @property
    def reason(self) -> str:
        return self.note("reason")

    @property
    def place(self) -> str:
        """Where the record lay, as `topic/partition@offset`."""
        return f"{self.source}/{self.note('partition')}@{self.note('offset')}"

    @property
    def own_headers(self) -> list[tuple[str, bytes]]:
        """The headers that the record came with."""
        return [(name, value) for name, value in self.headers if not name.startswith(PREFIX)]

    @property
    def omitted(self) -> bool:
        """Whether the record was larger than a dead letter may be, so that only its place was kept."""
        return bool(self.note("omitted"))

    def note(self, name: str) -> str:
        """What the bus wrote down; the last one counts, for a sender may have used the name as well."""
        return envelope.decode(self.headers).get(PREFIX + name, "")

    @cached_property
    def digest(self) -> bytes:
        """The same for the same message, however often it became a dead letter."""
        told = repr((self.source, self.key, self.value, self.own_headers))
        return hashlib.sha256(told.encode()).digest()

    @cached_property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the value, as this version reads it; nothing when a replay will be understood."""
        if self.omitted:
            return (f"the record of {self.note('omitted')} bytes was too large to be kept; it lies at {self.place}",)
        event_type = BY_TOPIC.get(self.source)
        if event_type is None:
            return (f"no event is called {self.source}",)
        try:
            event_type.model_validate(envelope.parse(self.value))
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)
            return tuple(f"{'.'.join(map(str, each['loc'])) or 'value'}: {each['msg']}" for each in found)
        except json.JSONDecodeError as error:
            return (f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})" if self.value else "empty",)
        except UnicodeDecodeError as error:
            return (f"not UTF-8: byte {error.start}",)
        except RecursionError:
            return ("not JSON that anyone would write: nested too deep",)
        return ()


@dataclass
class Summary:
    """The letters of one topic, counted."""

    topic: str
    letters: int = 0
    readable: int = 0
    """Letters that this version of the events understands."""
    first: int | None = None
    last: int | None = None
    """Offsets."""
    newest: float | None = None
    reasons: Counter[str] = field(default_factory=Counter)
    _digests: set[bytes] = field(default_factory=set)

    def add(self, letter: Letter) -> None:
        self.letters += 1
        self.readable += not letter.problems
        self.first = letter.offset if self.first is None else self.first
        self.last = letter.offset
        self.newest = max(self.newest or 0.0, letter.time)
        self.reasons[letter.reason or "?"] += 1
        self._digests.add(letter.digest)

    @property
    def messages(self) -> int:
        """Different messages: each service that reads a topic writes its own letter of the same record."""
        return len(self._digests)

    def document(self) -> dict[str, Any]:
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


def printable(text: str) -> str:
    """The text with everything escaped that a terminal would obey instead of showing it."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def pretty(value: bytes | None) -> str:
    """Indented JSON if it is any, else the text with escapes for what is none."""
    try:
        return printable(json.dumps(envelope.parse(value), indent=2, ensure_ascii=False))
    except (ValueError, RecursionError):
        return printable((value or b"").decode("utf-8", errors="backslashreplace"))

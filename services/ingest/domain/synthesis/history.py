"""What has happened in a synthesis: the entries of its journal, and what follows from them.

Entries are written before what they announce (`Asked`) or before anything is built on them (all others). So whatever is
killed, the journal knows every reply that came, and everything that may have been spent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from services.ingest.domain.synthesis.budget import Cost, total


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Begun(_Entry):
    """The first entry: for which requests the journal is, see `SynthesisSpec.digest`."""

    type: Literal["begun"] = "begun"
    digest: str


class Asked(_Entry):
    """A request is about to be sent. `cost`: the most that it may cost."""

    type: Literal["asked"] = "asked"
    id: str
    number: int
    cost: Cost


class Unspent(_Entry):
    """The request `number` was not sent, or was turned away, so it costs nothing."""

    type: Literal["unspent"] = "unspent"
    id: str
    number: int


class Answered(_Entry):
    """The reply to the request `number`, and what it cost."""

    type: Literal["answered"] = "answered"
    id: str
    number: int
    text: str
    finish_reason: str | None = None
    cost: Cost
    seconds: float = 0.0


class Taken(_Entry):
    """The query of an attempt is no near-duplicate; later ones are compared with it."""

    type: Literal["taken"] = "taken"
    slot: int
    attempt: int
    query: str


class Dropped(_Entry):
    """An attempt makes no row."""

    type: Literal["dropped"] = "dropped"
    slot: int
    attempt: int
    reason: str
    detail: str = ""


class Kept(_Entry):
    """An attempt makes a row. `score`: of the judge, None without one."""

    type: Literal["kept"] = "kept"
    slot: int
    attempt: int
    query: str
    answer: str
    score: int | None = None


Entry = Annotated[Begun | Asked | Unspent | Answered | Taken | Dropped | Kept, Field(discriminator="type")]
ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)


@dataclass
class History:
    """What the entries so far say."""

    digest: str | None = None
    answers: dict[str, Answered] = field(default_factory=dict)
    """By the id of the request."""
    kept: dict[int, Kept] = field(default_factory=dict)
    """By slot."""
    dropped: dict[int, list[Dropped]] = field(default_factory=dict)
    """By slot, in order."""
    taken: dict[tuple[int, int], str] = field(default_factory=dict)
    """The queries that others are compared with, by slot and attempt."""
    requests: int = 0
    """That were sent, or may have been."""
    spent: Cost = field(default_factory=Cost)
    """By the replies that came."""
    _open: dict[tuple[str, int], Cost] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> History:
        """What all `entries` say."""
        history = cls()
        for entry in entries:
            history.apply(entry)
        return history

    def apply(self, entry: Entry) -> None:
        """Take in the next entry."""
        match entry:
            case Begun():
                self.digest = entry.digest
            case Asked():
                self._open[entry.id, entry.number] = entry.cost
                self.requests += 1
            case Unspent():
                if self._open.pop((entry.id, entry.number), None) is not None:
                    self.requests -= 1
            case Answered():
                self._open.pop((entry.id, entry.number), None)
                self.answers[entry.id] = entry
                self.spent += entry.cost
            case Taken():
                self.taken[entry.slot, entry.attempt] = entry.query
            case Dropped():
                self.dropped.setdefault(entry.slot, []).append(entry)
                self.taken.pop((entry.slot, entry.attempt), None)  # it is in no row: another may resemble it
            case Kept():
                self.kept[entry.slot] = entry

    def next_number(self, id: str) -> int:
        """The number of the next request of this id."""
        return sum(1 for open_, _ in self._open if open_ == id)

    @property
    def unanswered(self) -> Cost:
        """The most that the requests without a reply may have cost: those that are under way, and those whose reply was
        lost when a connection or a process died."""
        return total(self._open.values())

    @property
    def used(self) -> Cost:
        """The most that may have been spent so far."""
        return self.spent + self.unanswered

    @property
    def lost(self) -> int:
        """How many requests have no reply."""
        return len(self._open)

    def reasons(self) -> Counter[str]:
        """How many attempts were refused, by reason."""
        return Counter(entry.reason for entries in self.dropped.values() for entry in entries)

    def attempts(self, slot: int) -> int:
        """How many attempts at a row were refused."""
        return len(self.dropped.get(slot, ()))

"""What a client should know about an answer: it may be older than usual, because something is away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

STORE_AWAY = "The object store does not answer: this is what was known before"
STORE_REFUSES = "The object store refuses the api service, whose log says why: this is what was known before"
BUS_AWAY = "Kafka does not answer: slower, working from the ledger"


@dataclass(frozen=True)
class Note:
    """`code` is for programs; `seconds`: for how long it has been so."""

    code: str
    message: str
    seconds: float

    def view(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "seconds": round(self.seconds, 1)}


def notes(*, store_away: float | None, store_refuses: bool, bus_away: float | None) -> Iterator[Note]:
    """`store_away`, `bus_away`: seconds since the last answer; None: it answers."""
    if store_away is not None:
        yield Note("store_away", STORE_REFUSES if store_refuses else STORE_AWAY, store_away)
    if bus_away is not None:
        yield Note("bus_away", BUS_AWAY, bus_away)

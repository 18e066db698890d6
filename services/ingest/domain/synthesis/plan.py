"""What each row of a synthesis is about. Everything is drawn by hashing, so that every run draws the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.ingest.domain.synthesis.spec import Scenario, Step, SynthesisSpec
from shared import ids

SHOWN_SEEDS = 3


@dataclass(frozen=True)
class Seed:
    """A row that shows the style."""

    query: str
    answer: str


@dataclass(frozen=True)
class Take:
    """One attempt at one row. `slot` and `attempt` count from 0."""

    slot: int
    attempt: int
    scenario: Scenario
    persona: str
    difficulty: str
    length: str
    language: str
    seeds: tuple[Seed, ...] = ()

    def id_of(self, step: Step) -> str:
        """The name of one of its requests."""
        return f"{self.slot}.{self.attempt}.{step}"


def take(spec: SynthesisSpec, seeds: Sequence[Seed], slot: int, attempt: int) -> Take:
    """The attempt `attempt` at the row `slot`. Another attempt has the same scenario, so that each keeps its share of
    the rows, and draws everything else anew."""

    def drawn(what: str, of: Sequence[str]) -> str:
        return of[_number(spec.seed, what, slot, attempt) % len(of)]

    order = sorted(range(len(seeds)), key=lambda index: _number(spec.seed, "seed", slot, attempt, index))
    return Take(
        slot=slot,
        attempt=attempt,
        scenario=_scenario(spec, slot),
        persona=drawn("persona", spec.vary.persona),
        difficulty=drawn("difficulty", spec.vary.difficulty),
        length=drawn("length", spec.vary.length),
        language=drawn("language", spec.vary.language),
        seeds=tuple(seeds[index] for index in order[:SHOWN_SEEDS]),
    )


def _scenario(spec: SynthesisSpec, slot: int) -> Scenario:
    """Scenarios come in rounds, each in an order of its own: all come up equally often, also where a budget ends the
    run early. The rotation keeps that without sorting thousands of names for every row."""
    round_, place = divmod(slot, len(spec.scenarios))
    return spec.scenarios[(place + _number(spec.seed, "scenarios", round_)) % len(spec.scenarios)]


def _number(*parts: object) -> int:
    return int.from_bytes(ids.derive(*parts, chars=12).encode(), "big")

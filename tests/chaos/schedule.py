"""Draws the faults of a run from its seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

Kind = Literal["kill", "stop", "cut", "mute", "slow", "clock", "fill"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LASTS = (2.0, 4.0, 8.0, 20.0)
OFTEN = (4, 4, 2, 1)
"""For how many seconds a fault lasts, and how often of eleven times: 20 s is longer than a lease of the stages and than
a session of the broker."""
SLOW = (2_000, 20_000, 200_000)
"""Bytes per second of a slow connection."""
CLOCKS = (-3600, -60, 60, 3600)
"""How many seconds a clock is off."""
BREATH = 1.0
"""Seconds between the end of a fault and the next of the same target."""


@dataclass(frozen=True)
class Fault:
    """One fault. `at`: seconds after the start of the schedule; `seconds`: how long it lasts, 0 if it is over at once.

    | kind | target | what it does |
    |---|---|---|
    | `kill` | a process | SIGKILL; whoever supervises it starts it again |
    | `stop` | a process | SIGSTOP, and SIGCONT later |
    | `cut` | a link | resets the connections, and refuses new ones |
    | `mute` | a link | requests arrive, no answer comes back; then the connections are reset |
    | `slow` | a link | `amount` bytes per second |
    | `clock` | a process | its clock is `amount` seconds off |
    | `fill` | a disk | no byte is left on it |
    """

    number: int
    at: float
    kind: Kind
    target: str
    seconds: float = 0.0
    amount: int = 0

    def __str__(self) -> str:
        how = {"slow": f" to {self.amount} bytes/s", "clock": f" by {self.amount:+d} s"}.get(self.kind, "")
        lasts = f" for {self.seconds:.0f} s" if self.seconds else ""
        return f"{self.kind} {self.target}{how}{lasts}"


Targets = Mapping[Kind, Sequence[str]]
"""What can be hit by which kind of fault."""


def schedule(seed: str, count: int, targets: Targets, every: float = 5.0) -> list[Fault]:
    """`count` faults, one every `every` seconds on average, in the order of their times.

    Every pair of kind and target comes once before any comes again, as cards are dealt, so that few faults reach many
    parts. Faults overlap, but no two of one target. The same arguments always give the same faults.
    """
    random = Random(f"{seed}/faults")
    pairs = [(kind, target) for kind in KINDS for target in targets.get(kind, ())]
    if not pairs:
        raise ValueError("there is nothing to hit")
    deck: list[tuple[Kind, str]] = []
    free_at: dict[str, float] = {}
    faults: list[Fault] = []
    at = 0.0
    for number in range(1, count + 1):
        at += random.uniform(0.4, 1.6) * every
        if not deck:
            deck = random.sample(pairs, len(pairs))
        chosen = next((pair for pair in deck if free_at.get(pair[1], 0.0) <= at), None)
        if chosen is None:  # all targets that are left are busy: wait for the first
            chosen = min(deck, key=lambda pair: free_at[pair[1]])
            at = free_at[chosen[1]]
        deck.remove(chosen)
        kind, target = chosen
        seconds = 0.0 if kind == "kill" else random.choices(LASTS, OFTEN)[0]
        amount = random.choice(SLOW) if kind == "slow" else random.choice(CLOCKS) if kind == "clock" else 0
        faults.append(Fault(number, round(at, 2), kind, target, seconds, amount))
        free_at[target] = at + seconds + BREATH
    return faults

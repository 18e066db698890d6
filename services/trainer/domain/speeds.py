"""What a run should need and take, what trainings took on a machine beside that, and what follows for the next plan
there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from services.trainer.domain.memory_plan import Need
from shared.events import FrozenModel

MOST_KEPT = 200
"""Trainings that are remembered."""
LAST = 3
"""Of the trainings that are alike, the median of so many counts: one that ran beside others would mislead."""


@dataclass(frozen=True)
class Estimate:
    """Of one fit: bytes of memory at the peak, tokens per second, and seconds of all steps (None: not known)."""

    need: Need
    tokens_per_second: float | None
    seconds: float | None
    memory: float = 1.0
    """A factor for `need`, as it was measured."""

    @property
    def memory_bytes(self) -> int:
        return int(self.need.total * self.memory)

    def corrected(self, *, seconds: float, memory: float) -> Estimate:
        """The same with the factors that were measured."""
        speed = None if self.tokens_per_second is None else self.tokens_per_second / seconds
        took = None if self.seconds is None else self.seconds * seconds
        return replace(self, tokens_per_second=speed, seconds=took, memory=memory)


class Speed(FrozenModel):
    """What one training took, as multiples of its plan. `device`: its name; `processes`: how many such devices. `at`:
    when it ended, in seconds since the epoch."""

    device: str
    processes: int = 1
    base: str
    parameters: int
    quantization: str
    seconds: float
    """Measured seconds of all steps, validations and checkpoints, divided by those of the plan."""
    memory: float
    """The measured peak, divided by that of the plan."""
    tokens_per_second: float
    other_seconds: float
    """What the run took beside that: to encode the rows, load the base, and save."""
    at: float


@dataclass(frozen=True)
class Correction:
    """Factors for a plan, and where they come from. `other_seconds`: None, if nothing was measured."""

    seconds: float = 1.0
    memory: float = 1.0
    other_seconds: float | None = None
    reason: str = "the engine's usual efficiency: no training was measured on this machine yet"


PLANNED = Correction()


@dataclass(frozen=True)
class Known:
    """What is known of the machine that a run plans for. `device`: its name; `processes`: how many such devices."""

    speeds: tuple[Speed, ...]
    device: str
    base: str
    parameters: int
    processes: int = 1

    def correction(self, quantization: str) -> Correction:
        return correction(
            self.speeds,
            device=self.device,
            processes=self.processes,
            base=self.base,
            parameters=self.parameters,
            quantization=quantization,
        )


def correction(
    speeds: Sequence[Speed], *, device: str, processes: int, base: str, parameters: int, quantization: str
) -> Correction:
    """The correction for a run, by the trainings that are most like it: on the same device, with the same base and
    quantization; else with the same base; else with the base of the nearest size."""
    here = [each for each in speeds if (each.device, each.processes) == (device, processes)]
    if not here:
        return PLANNED
    same = [each for each in here if each.base == base and each.parameters == parameters]
    alike = [each for each in same if each.quantization == quantization] or same
    if not alike:
        nearest = min(here, key=lambda each: _ratio(each.parameters, parameters))
        alike = [each for each in here if (each.base, each.parameters) == (nearest.base, nearest.parameters)]
    last = sorted(alike, key=lambda each: each.at)[-LAST:]
    found = last[-1]
    whose = "this base" if same else f"{found.base}, the measured base of the nearest size"
    return Correction(
        seconds=median(each.seconds for each in last),
        # memory is not the same multiple for another base
        memory=median(each.memory for each in last) if same else 1.0,
        other_seconds=median(each.other_seconds for each in last),
        reason=f"measured on this machine: {found.device} with {whose}, {_count(len(last))}",
    )


def kept(speeds: Sequence[Speed], new: Speed) -> list[Speed]:
    """What is remembered once a training has ended."""
    return [*speeds, new][-MOST_KEPT:]


def _ratio(one: int, other: int) -> float:
    large, small = max(one, other, 1), max(1, min(one, other))
    return large / small


def _count(number: int) -> str:
    return "the last training" if number == 1 else f"the median of the last {number} trainings"

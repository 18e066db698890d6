"""The search space of a sweep: which settings of a job are drawn, from where, and how a draw becomes settings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import Field, ValidationError

from shared.errors import InputError
from shared.events import JobSpec, StrictModel
from shared.jobs.explain import explained

Number: TypeAlias = int | float
Parameters: TypeAlias = dict[str, int | float]
"""A draw: a value for each parameter of the space, by name."""

MOST_CHOICES = 64


class Range(StrictModel):
    """Numbers from `low` to `high`, both among them. `log`: as many from 0.1 to 1 as from 1 to 10."""

    low: int | float
    high: int | float
    log: bool = False


Choices = Annotated[tuple[int | float, ...], Field(max_length=MOST_CHOICES)]
"""A list of values."""


class SearchSpace(StrictModel):
    """What is searched, by the names that the settings of a job have. What is left out is the same for all trials."""

    n_epochs: Range | Choices | None = None
    batch_size: Range | Choices | None = None
    learning_rate_multiplier: Range | Choices | None = None
    learning_rate: Range | Choices | None = None
    warmup_ratio: Range | Choices | None = None
    weight_decay: Range | Choices | None = None
    r: Choices | None = None
    """The rank of the adapter."""
    alpha: Range | Choices | None = None
    dropout: Range | Choices | None = None

    def searched(self) -> dict[str, Range | tuple[Number, ...]]:
        """The parameters that are drawn, in the order of their definition."""
        named = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: domain for name, domain in named if domain is not None}


PLACES = {
    "n_epochs": "hyperparameters",
    "batch_size": "hyperparameters",
    "learning_rate_multiplier": "hyperparameters",
    "learning_rate": "hyperparameters",
    "warmup_ratio": "hyperparameters",
    "weight_decay": "hyperparameters",
    "r": "lora",
    "alpha": "lora",
    "dropout": "lora",
}
"""Where the settings of a job have each parameter."""
WHOLE = frozenset({"n_epochs", "batch_size", "r", "alpha"})
"""Parameters that are whole numbers."""
USUAL = SearchSpace(
    n_epochs=Range(low=1, high=5),
    learning_rate_multiplier=Range(low=0.2, high=5.0, log=True),
    r=(8, 16, 32, 64),
    dropout=(0.0, 0.05, 0.1),
    batch_size=(4, 8, 16, 32),
)
"""What is searched where the user says nothing. The learning rate multiplies that of the size of the base, so its range
reaches as far below 1 as above."""

COMMON: Parameters = {
    "n_epochs": 3,
    "batch_size": 8,
    "learning_rate_multiplier": 1.0,
    "learning_rate": 2e-4,
    "warmup_ratio": 0.05,
    "weight_decay": 0.0,
    "r": 16,
    "alpha": 32,
    "dropout": 0.0,
}
"""What a job of a few hundred rows is trained with where nobody searches."""

OF_THE_ADAPTER = ("r", "alpha")
"""What a training that starts from a tuned model takes over from it."""


def usual_space(spec: JobSpec, largest_rank: int, *, tuned: bool) -> SearchSpace:
    """`USUAL`, but for what the user has set in `spec`. `largest_rank`: what the deployment serves. `tuned`: trainings
    start from a tuned model."""
    chosen = {place: getattr(spec, place).model_dump(exclude_defaults=True) for place in set(PLACES.values())}
    fixed = {name for name, place in PLACES.items() if name in chosen[place]}
    if "learning_rate" in fixed:
        fixed.add("learning_rate_multiplier")
    if tuned:
        fixed.update(OF_THE_ADAPTER)
    ranks = tuple(rank for rank in USUAL.r or () if rank <= largest_rank) or (largest_rank,)
    return USUAL.model_copy(update={"r": ranks} | dict.fromkeys(fixed))


def check_space(space: SearchSpace, spec: JobSpec, trials: int, largest_rank: int, *, tuned: bool) -> None:
    """Check that every draw makes settings that a job may have, and that there are enough different ones.
    `largest_rank`, `tuned`: as in `usual_space`.

    Raises:
        InputError: names the parameter, and what to change.
    """
    if not space.searched():
        names = ", ".join(PLACES)
        raise InputError("empty_space", f"'space' names no parameter; name at least one of {names}.", "space")
    for name, domain in space.searched().items():
        _check_domain(name, domain)
        if tuned and name in OF_THE_ADAPTER:
            message = f"A training that starts from a tuned model has its '{name}'; leave out 'space.{name}'."
            raise InputError("invalid_value", message, f"space.{name}")
        fixed = getattr(spec, PLACES[name]).model_dump(exclude_defaults=True).get(name)
        if fixed is not None:
            where = f"{PLACES[name]}.{name}"
            message = f"'{where}' is set to {fixed} and searched, too; leave out one of '{where}' and 'space.{name}'."
            raise InputError("invalid_value", message, f"space.{name}")
        for value in (domain.low, domain.high) if isinstance(domain, Range) else domain:
            try:
                settings(spec, {name: value})
            except ValidationError as error:
                reason = explained(error, JobSpec)[0].reason
                setting = f"{PLACES[name]}.{name}"
                message = f"A job cannot have {value} as '{setting}', which {reason}; change 'space.{name}'."
                raise InputError("invalid_value", message, f"space.{name}") from None
    if space.r is not None and max(space.r) > largest_rank:
        message = (
            f"'space.r' goes up to {max(space.r)}, and {largest_rank} is the highest rank that is served here "
            "(TUNESTREAM_VLLM__MAX_LORA_RANK); leave out higher ones."
        )
        raise InputError("invalid_value", message, "space.r")
    if space.learning_rate is not None and space.learning_rate_multiplier is not None:
        message = "'learning_rate' and 'learning_rate_multiplier' set the same thing; search one of them."
        raise InputError("invalid_value", message, "space.learning_rate")
    count = combinations(space)
    if count is not None and count < trials:
        message = (
            f"'space' has {count} different draws, fewer than 'trials' ({trials}); lower 'trials', or search more."
        )
        raise InputError("space_too_small", message, "trials")


def first_draw(space: SearchSpace) -> Parameters:
    """The draw that is nearest to `COMMON`: the best trial of a sweep is no worse than what a plain job does."""
    return {name: _nearest(COMMON[name], domain) for name, domain in space.searched().items()}


def _nearest(value: Number, domain: Range | tuple[Number, ...]) -> Number:
    if isinstance(domain, Range):
        return min(max(value, domain.low), domain.high)
    return min(domain, key=lambda each: abs(each - value))


def _check_domain(name: str, domain: Range | tuple[Number, ...]) -> None:
    param = f"space.{name}"
    if isinstance(domain, tuple):
        if not domain:
            raise InputError("empty_space", f"'{param}' is an empty list; list the values to try.", param)
        if len(set(domain)) < len(domain):
            raise InputError("invalid_value", f"'{param}' names a value more than once; list each one time.", param)
        values: tuple[Number, ...] = domain
    else:
        if domain.low >= domain.high:
            message = f"'{param}' goes from {domain.low} to {domain.high}; 'low' must be below 'high'."
            raise InputError("invalid_value", message, f"{param}.low")
        if domain.log and domain.low <= 0:
            message = f"'{param}' is logarithmic from {domain.low}; give a 'low' above 0, or leave out 'log'."
            raise InputError("invalid_value", message, f"{param}.low")
        values = (domain.low, domain.high)
    for value in values:
        if name in WHOLE and not float(value).is_integer():
            message = f"'{param}' has the value {value}, but '{name}' is a whole number; write one."
            raise InputError("invalid_value", message, param)


def combinations(space: SearchSpace) -> int | None:
    """How many different draws there are; None: no limit."""
    sizes = [_size(name, domain) for name, domain in space.searched().items()]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


def _size(name: str, domain: Range | tuple[Number, ...]) -> int | None:
    if isinstance(domain, tuple):
        return len(domain)
    return int(domain.high) - int(domain.low) + 1 if name in WHOLE else None


def all_draws(space: SearchSpace) -> Iterator[Parameters]:
    """Every draw of a space that has `combinations`."""
    domains = space.searched()
    values = [
        domain if isinstance(domain, tuple) else range(int(domain.low), int(domain.high) + 1)
        for domain in domains.values()
    ]
    for drawn in itertools.product(*values):
        yield dict(zip(domains, drawn, strict=True))


def settings(spec: JobSpec, parameters: Mapping[str, Number]) -> JobSpec:
    """The settings of the job that tries these parameters.

    Raises:
        ValidationError: no job may have such a value.
    """
    values: dict[str, Any] = spec.model_dump(exclude_unset=True)
    for name, value in parameters.items():
        place = values[PLACES[name]] = dict(values.get(PLACES[name]) or {})
        place[name] = int(value) if name in WHOLE else value
    return JobSpec.model_validate(values)

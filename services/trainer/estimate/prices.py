"""What a run costs, by a price file that users edit. `prices.json` beside this module is an example of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError

from shared.errors import InputError
from shared.events import FrozenModel, StrictModel
from shared.jobs.explain import explained

BUNDLED = Path(__file__).with_name("prices.json")
MILLION = 1_000_000
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Dated(StrictModel):
    """Every price says when it was looked up, and where."""

    date: str
    source: str


class GpuPrice(Dated):
    per_hour: Price
    """Of one such device."""


class HostedPrice(Dated):
    """Of a million tokens: trained on, and of prompts and answers of the tuned model."""

    training: Price
    input: Price | None = None
    output: Price | None = None


class Prices(StrictModel):
    """A price file, JSON or YAML."""

    currency: str = "USD"
    note: str = ""
    gpus: dict[str, GpuPrice] = Field(default_factory=dict)
    hosted: dict[str, HostedPrice] = Field(default_factory=dict)


class Cost(FrozenModel):
    """One line of the bill. `amount`: None: it is not known, and `reason` says why."""

    what: str
    amount: float | None
    currency: str
    reason: str
    per_1000_answers: float | None = None
    """Of answering with the tuned model."""


def load(path: Path | None) -> Prices:
    """Read a price file; None: the bundled one.

    Raises:
        InputError: `invalid_prices`: it cannot be read, or a field is wrong.
    """
    file = path or BUNDLED
    try:
        return Prices.model_validate(yaml.safe_load(file.read_text()))
    except (OSError, yaml.YAMLError, ValueError) as error:
        if isinstance(error, ValidationError):
            why = "; ".join(f"{wrong.field or 'the file'}: {wrong.reason}" for wrong in explained(error, Prices))
        else:
            why = str(error)
        message = f"the price file {file} cannot be used: {why}; its form is that of {BUNDLED.name} in this package"
        raise InputError("invalid_prices", message, "prices") from None


def local(prices: Prices, device: str, seconds: float | None, processes: int = 1) -> Cost:
    """What so many seconds on so many devices cost. `device`: as price files call it."""
    what = f"training on {device}" if processes == 1 else f"training on {processes} x {device}"
    price = prices.gpus.get(device)
    if price is None:
        reason = f"the price file has no price for {device!r}: add it below `gpus`"
        return Cost(what=what, amount=None, currency=prices.currency, reason=reason)
    if seconds is None:
        reason = "how long the run takes is not known"
        return Cost(what=what, amount=None, currency=prices.currency, reason=reason)
    hours = seconds / 3600 * processes
    reason = f"{hours:.3g} h at {price.per_hour:g} an hour ({price.date}, {price.source})"
    return Cost(what=what, amount=hours * price.per_hour, currency=prices.currency, reason=reason)


def hosted(prices: Prices, model: str, tokens: int, prompt: float, answer: float) -> Cost:
    """What a provider asks for training on so many `tokens` of all epochs. `prompt`, `answer`: mean tokens of each."""
    what = f"hosted training of {model}"
    price = prices.hosted.get(model)
    if price is None:
        known = ", ".join(sorted(prices.hosted)) or "nothing"
        reason = f"the price file does not know {model!r} (it knows {known}): add it below `hosted`"
        return Cost(what=what, amount=None, currency=prices.currency, reason=reason)
    answers = None
    if price.input is not None and price.output is not None:
        answers = 1000 * (prompt * price.input + answer * price.output) / MILLION
    reason = f"{tokens:,} tokens at {price.training:g} a million ({price.date}, {price.source}), counted for this base"
    amount = tokens * price.training / MILLION
    return Cost(what=what, amount=amount, currency=prices.currency, reason=reason, per_1000_answers=answers)

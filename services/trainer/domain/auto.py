"""Chooses the hyperparameters that are `auto`, and gives the user a reason for each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import JsonValue

from services.trainer.domain.plan import Plan

T = TypeVar("T")

RANKS = (1, 8, 16, 32, 64, 128, 256)
MIN_EXAMPLES_SEEN = 300  # with fewer examples in all epochs together, an adapter stays close to its initial zero
USUAL_EPOCHS, MOST_EPOCHS = 3, 10
ONE_EPOCH_EXAMPLES = 25_000
LARGEST_AUTO_BATCH = 64
DPO_RATE_SHARE = 0.1  # the loss sums log-probabilities of whole answers, so steps must be smaller


@dataclass(frozen=True)
class Choice(Generic[T]):
    """A value, and why it was chosen."""

    value: T
    reason: str


@dataclass(frozen=True)
class Facts:
    """What the choices depend on. `trained_tokens`: how many tokens of one epoch are in the loss."""

    examples: int
    trained_tokens: int
    parameters: int
    has_validation: bool


@dataclass(frozen=True)
class Chosen:
    """Every hyperparameter of a run."""

    n_epochs: Choice[int]
    batch_size: Choice[int]
    learning_rate: Choice[float]
    learning_rate_multiplier: Choice[float]
    warmup_ratio: Choice[float]
    weight_decay: Choice[float]
    max_grad_norm: Choice[float]
    max_length: Choice[int]
    lora_r: Choice[int]
    lora_alpha: Choice[int]
    lora_dropout: Choice[float]
    quantization: Choice[str]
    early_stopping_patience: Choice[int]
    beta: Choice[float] | None
    seed: Choice[int]

    def document(self) -> dict[str, JsonValue]:
        """`{name: {value, reason}}`, what `hyperparameters.json` holds."""
        present = {name: choice for name, choice in vars(self).items() if choice is not None}
        return {name: {"value": choice.value, "reason": choice.reason} for name, choice in present.items()}

    def values(self) -> dict[str, JsonValue]:
        """`{name: value}`, without reasons."""
        return {name: choice.value for name, choice in vars(self).items() if choice is not None}


def choose(plan: Plan, facts: Facts, max_length: Choice[int]) -> Chosen:
    """Choose every hyperparameter that is `auto`. `max_length` comes from `choose_max_length`, because `facts` depend
    on it."""
    asked, lora = plan.hyperparameters, plan.lora
    rank = _given(lora.r) or _rank(facts.trained_tokens, plan.max_lora_rank)
    rate, multiplier = _learning_rate(plan, facts.parameters)
    return Chosen(
        n_epochs=_given(asked.n_epochs) or _epochs(facts.examples),
        batch_size=_given(asked.batch_size) or _batch_size(facts.examples),
        learning_rate=rate,
        learning_rate_multiplier=multiplier,
        warmup_ratio=_setting(asked.warmup_ratio),
        weight_decay=_setting(asked.weight_decay),
        max_grad_norm=_setting(asked.max_grad_norm),
        max_length=max_length,
        lora_r=rank,
        lora_alpha=_given(lora.alpha) or Choice(2 * rank.value, "twice the rank, the usual scale of an adapter"),
        lora_dropout=_setting(lora.dropout),
        quantization=Choice(lora.quantization, "the base's weights while training"),
        early_stopping_patience=_patience(asked.early_stopping_patience, facts.has_validation),
        beta=(_given(asked.beta) or Choice(0.1, "the usual strength of DPO")) if plan.method == "dpo" else None,
        seed=_setting(plan.seed),
    )


def choose_max_length(plan: Plan, context: int | None, longest: int) -> Choice[int]:
    """How many tokens a row may have. `context` is the limit of the base (None: it states none), `longest` the tokens
    of the longest row."""
    limit = plan.max_length or (None if plan.hyperparameters.max_length == "auto" else plan.hyperparameters.max_length)
    if limit is not None:
        if context is not None and limit > context:
            return Choice(context, f"{limit} was asked for, but the base model reads no more than {context} tokens")
        return Choice(limit, "as set" if plan.max_length is None else "as the validation of the dataset decided")
    if context is not None and longest > context:
        return Choice(context, f"the context of the base model; the longest row has {longest} tokens")
    return Choice(max(8, longest), "the longest row, so nothing is cut")


def _given(value: T | str) -> Choice[T] | None:
    return None if value == "auto" or isinstance(value, str) else Choice(value, "as set")


def _setting(value: T) -> Choice[T]:
    return Choice(value, "as set")


def _epochs(examples: int) -> Choice[int]:
    if examples * USUAL_EPOCHS < MIN_EXAMPLES_SEEN:
        epochs = min(MOST_EPOCHS, math.ceil(MIN_EXAMPLES_SEEN / examples))
        return Choice(epochs, f"{examples} examples are few: repeated until about {MIN_EXAMPLES_SEEN} were seen")
    if examples * USUAL_EPOCHS > ONE_EPOCH_EXAMPLES * 2:
        epochs = max(1, round(ONE_EPOCH_EXAMPLES * 2 / examples))
        return Choice(min(epochs, USUAL_EPOCHS), f"{examples} examples are many: fewer passes are enough")
    return Choice(USUAL_EPOCHS, f"the usual number of passes over {examples} examples")


def _batch_size(examples: int) -> Choice[int]:
    wanted = 2 ** round(math.log2(max(1.0, math.sqrt(examples) / 2)))
    size = max(1, min(LARGEST_AUTO_BATCH, wanted, examples))
    return Choice(size, f"about half the square root of {examples} examples, as a power of two")


def _learning_rate(plan: Plan, parameters: int) -> tuple[Choice[float], Choice[float]]:
    asked = plan.hyperparameters
    if asked.learning_rate != "auto":
        return Choice(asked.learning_rate, "as set"), Choice(1.0, "not used: the learning rate itself was set")
    rate = base_learning_rate(parameters)
    reason = f"for a base of {_human(parameters)} parameters"
    if plan.method == "dpo":
        rate, reason = rate * DPO_RATE_SHARE, f"{reason}, a tenth of the supervised rate for preference pairs"
    if asked.learning_rate_multiplier == "auto":
        return Choice(rate, reason), Choice(1.0, "the automatic learning rate as it is")
    multiplier = asked.learning_rate_multiplier
    return Choice(rate * multiplier, f"{reason}, times the multiplier {multiplier:g}"), Choice(multiplier, "as set")


def base_learning_rate(parameters: int) -> float:
    """LoRA's learning rate by the base's size: 5e-3 at 5.5 M, falling smoothly to the usual 2e-4 at 1 G and above.

    The lower end was measured on the demo's base and data (validation loss after 120 steps: 1.81 at 3e-3, 1.51 at
    6e-3, 1.68 at 1e-2); 2e-4, and 1e-4 above 13 G, are the QLoRA paper's (arXiv 2305.14314, table 9).
    """
    if parameters > 13.5e9:
        return 1e-4
    smooth = 5e-3 * (5.5e6 / max(parameters, 1)) ** 0.62
    return float(f"{min(8e-3, max(2e-4, smooth)):.2g}")


def _rank(trained_tokens: int, most: int) -> Choice[int]:
    wanted = 16 if trained_tokens < 2_000_000 else 32 if trained_tokens < 20_000_000 else 64
    rank = max(r for r in RANKS if r <= min(wanted, most))
    limited = f", limited to what is served ({most})" if rank < wanted else ""
    return Choice(rank, f"room enough for {_human(trained_tokens)} trained tokens{limited}")


def _patience(patience: int, has_validation: bool) -> Choice[int]:
    if not has_validation:
        return Choice(0, "there is no validation data to stop by")
    return Choice(patience, "validations without improvement before training stops; 0: never")


def _human(number: int) -> str:
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return str(number)

"""Chooses the hyperparameters that are `auto`, and gives the user a reason for each.

Sources of the numbers: "LoRA Without Regret" (Thinking Machines, 2025) for alpha 32, batches of at most 32, rates by
size, a higher rate for short runs and as many parameters as trained tokens; OpenAI's cookbook for 3 epochs; Unsloth's
guide for DPO. The rates of bases below 0.9 G parameters follow our own measurements, see `base_learning_rate`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import JsonValue

from services.trainer.domain.plan import Plan
from services.trainer.domain.schedule import Steps
from shared.errors import ConfigError
from shared.events import Hyperparameters

T = TypeVar("T")

RANKS = (1, 8, 16, 32, 64, 128, 256)
AUTO_RANKS = (16, 32, 64)
ALPHA = 32  # fixed, so that the best rate does not depend on the rank
RSLORA_ALPHA = 8  # over sqrt(16) this is the scale that ALPHA has over 16, the rank of our measured rates
SMALL_BASE = 0.1e9  # up to here alpha is that of our own measurement, and short runs and pairs get no other rate
MEASURED_SIZE, MEASURED_RATE, HIGHEST_RATE = 5.5e6, 5e-3, 8e-3
RATES = ((1.3e9, 4e-4), (4.5e9, 3e-4), (10e9, 2.5e-4), (20e9, 1.5e-4), (math.inf, 1e-4))
"""(parameters, the rate up to there at an alpha of 32). A base that is called 1B has 1.24 G, one that is called 4B
4.02 G."""
SHORT_RUN, SHORT_RUN_FACTOR = 150, 1.5
DPO_RATE, DPO_RATE_SHARE = 5e-6, 0.1  # the loss sums log-probabilities of whole answers, so steps must be smaller
MIN_EXAMPLES_SEEN = 250  # with fewer examples in all epochs together, an adapter stays close to its initial zero
USUAL_EPOCHS, MOST_EPOCHS = 3, 10
THREE_EPOCHS_UP_TO, TWO_EPOCHS_UP_TO = 5_000, 25_000
DPO_TWO_EPOCHS_BELOW = 500
BATCHES = ((150, 4), (1_500, 8), (15_000, 16), (math.inf, 32))
"""(examples, the batch size up to there)."""
DPO_LEAST_BATCH = 16
WARMUP_STEPS, DPO_WARMUP = 5, 0.1
LEAST_VALIDATION = 30  # the noise of fewer rows is larger than most rises of the loss
UNSET = Hyperparameters()
"""Numbers that equal their defaults count as not set, as in the id of a job."""


@dataclass(frozen=True)
class Choice(Generic[T]):
    """A value, and why it was chosen."""

    value: T
    reason: str


@dataclass(frozen=True)
class Facts:
    """What the choices depend on.

    `trained_tokens`: how many tokens of one epoch are in the loss. `parameters`: of the base. `parameters_per_rank`:
    how many an adapter of rank 1 has. `start_rank`, `start_alpha`, `start_rslora`: of the adapter that the run starts
    from, if any.
    """

    examples: int
    trained_tokens: int
    parameters: int
    parameters_per_rank: int
    validation_examples: int = 0
    start_rank: int | None = None
    start_alpha: int | None = None
    start_rslora: bool | None = None


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
    use_rslora: Choice[bool]
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
        """`{name: value}`, without reasons. Plain LoRA is not named, so that checkpoints of earlier versions fit."""
        present = {name: choice.value for name, choice in vars(self).items() if choice is not None}
        return {name: value for name, value in present.items() if name != "use_rslora" or value}


def choose(plan: Plan, facts: Facts, max_length: Choice[int]) -> Chosen:
    """Choose every hyperparameter that is `auto`. `max_length` comes from `choose_max_length`, because `facts` depend
    on it."""
    asked, lora, dpo = plan.hyperparameters, plan.lora, plan.method == "dpo"
    rank = _given(lora.r) or _rank(facts, plan.max_lora_rank)
    epochs = _given(asked.n_epochs) or _epochs(facts.examples, dpo)
    batch = _given(asked.batch_size) or _batch_size(facts.examples, dpo)
    steps = Steps(facts.examples, batch.value, epochs.value).total
    rslora = _rslora(lora.use_rslora, facts)
    rate, multiplier = _learning_rate(plan, facts.parameters, steps)
    return Chosen(
        n_epochs=epochs,
        batch_size=batch,
        learning_rate=rate,
        learning_rate_multiplier=multiplier,
        warmup_ratio=_warmup(asked.warmup_ratio, steps, dpo),
        weight_decay=_setting(asked.weight_decay),
        max_grad_norm=_setting(asked.max_grad_norm),
        max_length=max_length,
        lora_r=rank,
        lora_alpha=_given(lora.alpha) or _alpha(facts, rank.value, rslora=rslora.value),
        use_rslora=rslora,
        lora_dropout=_dropout(lora.dropout, dpo),
        quantization=_quantization(lora.quantization),
        early_stopping_patience=_patience(asked.early_stopping_patience, facts.validation_examples),
        beta=(_given(asked.beta) or Choice(0.1, "the usual strength of DPO")) if dpo else None,
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


def choose_processes(asked: int | str, rows: int, visible: int | None) -> Choice[int]:
    """How many processes train together, one per GPU. `asked`: `gpus` of the plan; `rows`: those of a batch; `visible`:
    GPUs, None if the run is on a CPU.

    Raises:
        ConfigError: there are not so many GPUs.
    """
    if isinstance(asked, str):
        if visible is None:
            return Choice(1, "there is no GPU")
        if rows < visible:
            return Choice(rows, f"a batch has no more rows, and {visible} GPUs are visible")
        return Choice(visible, "all that are visible")
    if visible is not None and asked > visible:
        raise ConfigError(
            f"TUNESTREAM_TRAINER__GPUS is {asked}, but the training sees {visible}: lower it, use 'auto', or name more "
            "GPUs by TUNESTREAM_TRAINER__GPU"
        )
    return Choice(asked, "as set")


def _given(value: T | str) -> Choice[T] | None:
    return None if value == "auto" or isinstance(value, str) else Choice(value, "as set")


def _setting(value: T) -> Choice[T]:
    return Choice(value, "as set")


def _epochs(examples: int, dpo: bool) -> Choice[int]:
    if dpo and examples < DPO_TWO_EPOCHS_BELOW:
        return Choice(2, f"two passes, because {examples} preference pairs are fewer than {DPO_TWO_EPOCHS_BELOW}")
    if dpo:
        return Choice(1, f"one pass over {examples} preference pairs; more of them are soon learnt by heart")
    if examples * USUAL_EPOCHS < MIN_EXAMPLES_SEEN:
        epochs = min(MOST_EPOCHS, math.ceil(MIN_EXAMPLES_SEEN / examples))
        until = f"until about {MIN_EXAMPLES_SEEN} were seen, but at most {MOST_EPOCHS} times"
        return Choice(epochs, f"{examples} examples are few: repeated {until}")
    if examples <= THREE_EPOCHS_UP_TO:
        return Choice(USUAL_EPOCHS, f"the usual number of passes over {examples} examples")
    if examples <= TWO_EPOCHS_UP_TO:
        return Choice(2, f"two passes, because {examples} examples are more than {THREE_EPOCHS_UP_TO}")
    return Choice(1, f"one pass, because {examples} examples are more than {TWO_EPOCHS_UP_TO}")


def _batch_size(examples: int, dpo: bool) -> Choice[int]:
    size = next(size for most, size in BATCHES if examples <= most)
    wanted, reason = size, f"for {examples} examples; the more there are, the larger, up to {BATCHES[-1][1]}"
    if dpo and size < DPO_LEAST_BATCH:
        wanted, reason = DPO_LEAST_BATCH, f"the least for preference pairs, of which there are {examples}"
    return Choice(wanted, reason) if wanted <= examples else Choice(examples, f"all {examples} examples")


def _learning_rate(plan: Plan, parameters: int, steps: int) -> tuple[Choice[float], Choice[float]]:
    asked = plan.hyperparameters
    if asked.learning_rate != "auto":
        return Choice(asked.learning_rate, "as set"), Choice(1.0, "not used: the learning rate itself was set")
    rate, base = base_learning_rate(parameters), f"a base of {_human(parameters)} parameters"
    if plan.method == "dpo" and parameters > SMALL_BASE:
        rate, reason = DPO_RATE, f"the usual one for preference pairs, also for {base}"
    elif plan.method == "dpo":
        rate, reason = rate * DPO_RATE_SHARE, f"for {base}, a tenth of the supervised rate for preference pairs"
    elif parameters <= SMALL_BASE:
        reason = f"for {base}, by the curve measured for small bases"
    elif steps < SHORT_RUN:
        rate *= SHORT_RUN_FACTOR
        short = f"{SHORT_RUN_FACTOR} times as much as usual, because {steps} steps are fewer than {SHORT_RUN}"
        reason = f"for {base} at an alpha of {ALPHA}, {short}"
    else:
        reason = f"for {base} at an alpha of {ALPHA} and a run of {steps} steps"
    rate = float(f"{rate:.6g}")
    if asked.learning_rate_multiplier == "auto":
        return Choice(rate, reason), Choice(1.0, "the automatic learning rate as it is")
    multiplier = asked.learning_rate_multiplier
    return Choice(rate * multiplier, f"{reason}, times the multiplier {multiplier:g}"), Choice(multiplier, "as set")


def base_learning_rate(parameters: int) -> float:
    """LoRA's learning rate by the base's size, for supervised runs of 150 steps or more.

    It falls with the square root of the size until it meets `RATES`, at 0.86 G parameters. Two sizes were measured, at
    an alpha of 32, on the demo's data:

    - 5.5 M, the tiny base: validation loss after 120 steps 1.81 at 3e-3, 1.51 at 6e-3, 1.68 at 1e-2;
    - 135 M, SmolLM2 in nf4 on a GPU, mean of three seeds after 168 steps: 0.0459 at 4e-4, 0.0170 at 7e-4, 0.0130 at
      1e-3, 0.0108 at 1.5e-3, 0.0119 at 2.5e-3; after 56 steps 1.41, 0.90, 0.49, 0.19 and 0.09. The curve gives 1e-3,
      below the best: real data has more noise than the demo's.
    """
    curve = MEASURED_RATE * (MEASURED_SIZE / max(parameters, 1)) ** 0.5
    table = next(rate for most, rate in RATES if parameters <= most)
    return float(f"{min(HIGHEST_RATE, max(curve, table)):.2g}")


def _warmup(ratio: float, steps: int, dpo: bool) -> Choice[float]:
    if ratio != UNSET.warmup_ratio:
        return _setting(ratio)
    if dpo:
        return Choice(DPO_WARMUP, "a tenth of the steps, as usual for preference pairs")
    least = min(WARMUP_STEPS, steps // 2)
    if least > ratio * steps:
        return Choice(least / steps, f"{least} of {steps} steps, because {ratio:.0%} would be fewer")
    return Choice(ratio, f"{ratio:.0%} of {steps} steps")


def _rank(facts: Facts, most: int) -> Choice[int]:
    tokens = f"{_human(facts.trained_tokens)} trained tokens"
    if facts.start_rank is not None:
        return Choice(facts.start_rank, "that of the adapter that training starts from")
    enough = (r for r in AUTO_RANKS if r * facts.parameters_per_rank >= facts.trained_tokens)
    wanted = next(enough, AUTO_RANKS[-1])
    rank = max(r for r in RANKS if r <= min(wanted, most))
    parameters = rank * facts.parameters_per_rank
    if rank < wanted:
        reason = f"{_human(parameters)} parameters, limited to what is served ({most}), for {tokens}"
    elif parameters < facts.trained_tokens:
        reason = f"the largest automatic rank: {_human(parameters)} parameters for {tokens}"
    else:
        reason = f"{_human(parameters)} parameters, room enough for {tokens}"
    return Choice(rank, reason)


def _rslora(asked: bool | str, facts: Facts) -> Choice[bool]:
    if isinstance(asked, bool):
        return Choice(asked, "as set")
    if facts.start_rslora is not None:
        return Choice(facts.start_rslora, "that of the adapter that training starts from")
    return Choice(False, "the adapter is scaled by alpha / r, as usual")


def _alpha(facts: Facts, rank: int, *, rslora: bool) -> Choice[int]:
    if facts.start_alpha is not None:
        return Choice(facts.start_alpha, "that of the adapter that training starts from")
    if rslora:
        return Choice(RSLORA_ALPHA, f"over sqrt(r); at rank 16 the same scale as {ALPHA} over r, and the same rate")
    if facts.parameters <= SMALL_BASE:
        small = f"for a base of {_human(facts.parameters)} parameters"
        return Choice(2 * rank, f"twice the rank, {small}: with that the curve for small bases was measured")
    return Choice(ALPHA, "the same for every rank, so that the best learning rate is the same, too")


def _dropout(dropout: float, dpo: bool) -> Choice[float]:
    if dpo and not dropout:
        return Choice(0.0, "off, because its noise would be taken for a preference")
    return _setting(dropout)


def _quantization(asked: str) -> Choice[str]:
    """Without knowledge of the device; `recipe.py` chooses with it."""
    return Choice("nf4", "the smallest") if asked == "auto" else _setting(asked)


def _patience(patience: int, validation_examples: int) -> Choice[int]:
    if not validation_examples:
        return Choice(0, "there is no validation data to stop by")
    if patience != UNSET.early_stopping_patience:
        return Choice(patience, "as set: validations without improvement before training stops; 0: never")
    if validation_examples < LEAST_VALIDATION:
        few = f"{validation_examples} validation rows are fewer than {LEAST_VALIDATION}"
        return Choice(0, f"never stops early: {few}, so their loss is noisy")
    reason = "validations without improvement before training stops, if the last is above the best by more than noise"
    return Choice(patience, f"{reason} ({validation_examples} validation rows)")


def _human(number: int) -> str:
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return str(number)

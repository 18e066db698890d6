"""Token counts: their distribution, the length a row may have, and what training will roughly cost."""

from __future__ import annotations

from collections import Counter
from math import ceil, isqrt

from shared.errors import InputError
from shared.events import Auto, FrozenModel, Hyperparameters

# What `auto` allows at most: longer rows are rare in tuning sets, and memory for activations grows with the length.
AUTO_MAX_LENGTH = 4096

# A rough figure: QLoRA of an 8B model on one datacenter GPU runs at 10,000 to 16,000 tokens/s, a model of a few
# million parameters on two CPU cores at 8,500. After a few steps the trainer reports its own, measured ETA.
TOKENS_PER_SECOND = 10_000
START_SECONDS = 30.0  # loading and quantizing the base
AUTO_EPOCHS = 3  # what the trainer chooses in most cases


class Tokens(FrozenModel):
    """The distribution of tokens per row, by the base's own tokenizer; percentiles by nearest rank.
    Rows that are too long are counted as they are. A row of several sequences counts the tokens of all: both answers of
    a preference pair, and each sequence of a chat whose template rewrites earlier turns."""

    total: int
    min: int
    mean: float
    median: int
    p95: int
    max: int


class Estimate(FrozenModel):
    """A guess before the training starts. `reason` says what it is based on."""

    epochs: int
    training_tokens: int
    seconds: float
    reason: str


def distribution(histogram: Counter[int]) -> Tokens | None:
    """The distribution of a histogram (tokens of a row -> number of rows); None when there are no rows."""
    rows = histogram.total()
    if not rows:
        return None
    total = sum(tokens * count for tokens, count in histogram.items())
    lengths = sorted(histogram)

    def percentile(share: float) -> int:
        left = ceil(share * rows)
        for tokens in lengths:
            left -= histogram[tokens]
            if left <= 0:
                break
        return tokens

    return Tokens(
        total=total,
        min=lengths[0],
        mean=round(total / rows, 2),
        median=percentile(0.5),
        p95=percentile(0.95),
        max=lengths[-1],
    )


def doublings(histogram: Counter[int]) -> tuple[tuple[int, int], ...]:
    """A histogram with two bins for each doubling, as `in_order`."""
    bins: Counter[int] = Counter()
    for value, rows in histogram.items():
        bins[doubling(value)] += rows
    return in_order(bins)


def in_order(bins: Counter[int]) -> tuple[tuple[int, int], ...]:
    """Bins with the rows of each, as pairs of (least value, rows), from the first to the last that has rows."""
    return tuple((least(bin_), bins.get(bin_, 0)) for bin_ in range(min(bins), max(bins) + 1)) if bins else ()


def doubling(value: int) -> int:
    """The bin of a value: two for each doubling, divided at the square root of two."""
    if value <= 1:
        return 0
    low = 1 << (value.bit_length() - 1)
    return 2 * (value.bit_length() - 1) + int(value * value >= 2 * low * low)


def least(bin_: int) -> int:
    """The least value of a bin."""
    return isqrt((1 << bin_) - 1) + 1 if bin_ else 0


def max_length(wanted: int | Auto, context: int | None, base: str) -> int:
    """The tokens that a row may have. `context` is the base's limit, None where it states none.

    Raises:
        InputError: more is wanted than the base can read.
    """
    if wanted == "auto":
        return min(context or AUTO_MAX_LENGTH, AUTO_MAX_LENGTH)
    if context is not None and wanted > context:
        raise InputError(
            "invalid_hyperparameters",
            f"max_length is {wanted}, but {base} reads at most {context} tokens; set max_length to {context} or less.",
            "hyperparameters.max_length",
        )
    return wanted


def estimate(train_tokens: int, hyperparameters: Hyperparameters) -> Estimate:
    """Roughly how long training takes with `train_tokens` tokens per epoch."""
    epochs = AUTO_EPOCHS if hyperparameters.n_epochs == "auto" else hyperparameters.n_epochs
    tokens = train_tokens * epochs
    return Estimate(
        epochs=epochs,
        training_tokens=tokens,
        seconds=round(START_SECONDS + tokens / TOKENS_PER_SECOND, 1),
        reason=f"{train_tokens} tokens x {epochs} epochs at about {TOKENS_PER_SECOND} tokens/s, and "
        f"{START_SECONDS:.0f} s to load the base; the trainer knows better after its first steps",
    )

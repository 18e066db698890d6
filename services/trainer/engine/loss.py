"""The losses: next-token cross-entropy on trained tokens, and DPO on preference pairs."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F

from services.trainer.domain.schedule import micro_batches
from services.trainer.engine.data.batches import IGNORED, Batch, collate
from services.trainer.engine.data.dataset import Item
from services.trainer.engine.model.adapter import set_training
from services.trainer.engine.model.memory import Memory


class Sums(NamedTuple):
    """Sums over a micro-batch, not means: the gradient of a batch is the same however the batch is cut.

    `loss` and `correct` are scalars on the device; only `loss` has a gradient.
    """

    loss: Any
    correct: Any


class Objective(Protocol):
    """A loss that the training loop can minimise."""

    def weight(self, item: Item) -> int:
        """The weight of an item in the mean over its batch; the sums of the batch are divided by the sum of the
        weights."""
        ...

    def sums(self, model: Any, batch: Batch) -> Sums:
        """Send a micro-batch through the model."""
        ...

    def each(self, model: Any, batch: Batch) -> Sums:
        """As `sums`, but the loss of each item, (items,), without gradient."""
        ...


class Supervised:
    """Cross-entropy per trained token; `correct` counts the tokens that greedy decoding would have chosen."""

    def weight(self, item: Item) -> int:
        return sum(sequence.trained_tokens for sequence in item)

    def sums(self, model: Any, batch: Batch) -> Sums:
        scores = logits(model, batch)
        return Sums(_cross_entropy(scores, batch, "sum"), self._correct(scores, batch))

    def each(self, model: Any, batch: Batch) -> Sums:
        with torch.no_grad():
            scores = logits(model, batch)
            losses = _cross_entropy(scores, batch, "none").view_as(batch.targets).sum(-1)
        return Sums(losses, self._correct(scores, batch))

    def _correct(self, scores: Any, batch: Batch) -> Any:
        with torch.no_grad():
            return (scores.argmax(-1) == batch.targets).sum()  # IGNORED is not a token, so it matches none


class Dpo:
    """Direct preference optimisation (arXiv 2305.18290): -log sigmoid(beta * margin) per pair.

    The margin is how much more the tuned model prefers the preferred answer than it did before its first step, in
    log-probability; `preferences` finds that reference once for all pairs. `correct` counts the pairs with a positive
    margin.
    """

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def weight(self, item: Item) -> int:
        return 1

    def sums(self, model: Any, batch: Batch) -> Sums:
        losses, correct = self._losses(model, batch)
        return Sums(losses.sum(), correct)

    def each(self, model: Any, batch: Batch) -> Sums:
        with torch.no_grad():
            return self._losses(model, batch)

    def _losses(self, model: Any, batch: Batch) -> Sums:
        margin = _preference(model, batch) - batch.references
        return Sums(-F.logsigmoid(self.beta * margin), (margin.detach() > 0).sum())


def preferences(model: Any, items: Sequence[Item], *, pad_id: int, memory: Memory) -> tuple[float, ...]:
    """How much `model` prefers the preferred answer of each pair, in log-probability and without dropout.

    Raises:
        InputError: `out_of_memory`.
    """
    lengths = [max(map(len, item)) for item in items]

    def measure(micro_tokens: int) -> tuple[float, ...]:
        found: dict[int, float] = {}
        for micro in micro_batches(list(range(len(items))), lengths, micro_tokens):
            batch = collate([items[index] for index in micro], pad_id).to(memory.device)
            with memory.precision():
                found |= zip(micro, _preference(model, batch).tolist(), strict=True)
        return tuple(found[index] for index in range(len(items)))

    set_training(model, False)
    with torch.no_grad():
        return memory.within(measure)


def logits(model: Any, batch: Batch) -> Any:
    """The logits at the positions whose next token is trained on: (sequences, kept, vocabulary)."""
    inputs = {"input_ids": batch.tokens, "attention_mask": batch.attention_mask, "use_cache": False}
    if "logits_to_keep" in inspect.signature(model.get_base_model().forward).parameters:
        return model(**inputs, logits_to_keep=batch.columns).logits
    return model(**inputs).logits[:, batch.columns]


def _preference(model: Any, batch: Batch) -> Any:
    """The log-probability of each preferred answer minus that of the non-preferred one: (items,)."""
    flat = _cross_entropy(logits(model, batch), batch, "none")
    preferred, other = -flat.view_as(batch.targets).sum(-1).view(2, batch.items)
    return preferred - other


def _cross_entropy(scores: Any, batch: Batch, reduction: Literal["sum", "none"]) -> Any:
    """The sum, or the loss at each position: (sequences * kept,)."""
    return F.cross_entropy(
        scores.flatten(0, 1).float(), batch.targets.flatten(), ignore_index=IGNORED, reduction=reduction
    )

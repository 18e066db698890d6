"""The losses: next-token cross-entropy on trained tokens, and DPO on preference pairs."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F

from services.trainer.engine.data.batches import IGNORED, Batch


class Sums(NamedTuple):
    """Sums over a micro-batch, not means: the gradient of a batch is the same however the batch is cut.

    `loss` and `correct` are scalars on the device; only `loss` has a gradient.
    """

    loss: Any
    correct: Any


class Objective(Protocol):
    """A loss that the training loop can minimise."""

    def weight(self, batch: Batch) -> int:
        """The weight of a micro-batch in the mean over its batch; the sums of the batch are divided by the sum of the
        weights."""
        ...

    def sums(self, model: Any, batch: Batch) -> Sums:
        """Send a micro-batch through the model."""
        ...


class Supervised:
    """Cross-entropy per trained token; `correct` counts the tokens that greedy decoding would have chosen."""

    def weight(self, batch: Batch) -> int:
        return batch.trained_tokens

    def sums(self, model: Any, batch: Batch) -> Sums:
        scores = logits(model, batch)
        loss = F.cross_entropy(
            scores.flatten(0, 1).float(), batch.targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        with torch.no_grad():
            correct = (scores.argmax(-1) == batch.targets).sum()  # IGNORED is not a token, so it matches none
        return Sums(loss, correct)


class Dpo:
    """Direct preference optimisation (arXiv 2305.18290): -log sigmoid(beta * margin) per pair.

    The margin is how much more the tuned model prefers the preferred answer than its base does, in log-probability;
    the base is the same model with the adapter switched off. `correct` counts the pairs with a positive margin.
    """

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def weight(self, batch: Batch) -> int:
        return batch.items

    def sums(self, model: Any, batch: Batch) -> Sums:
        preference = _preference(model, batch)
        with torch.no_grad(), model.disable_adapter():
            of_base = _preference(model, batch)
        margin = preference - of_base
        return Sums(-F.logsigmoid(self.beta * margin).sum(), (margin.detach() > 0).sum())


def logits(model: Any, batch: Batch) -> Any:
    """The logits at the positions whose next token is trained on: (sequences, kept, vocabulary)."""
    inputs = {"input_ids": batch.tokens, "attention_mask": batch.attention_mask, "use_cache": False}
    if "logits_to_keep" in inspect.signature(model.get_base_model().forward).parameters:
        return model(**inputs, logits_to_keep=batch.columns).logits
    return model(**inputs).logits[:, batch.columns]


def _preference(model: Any, batch: Batch) -> Any:
    """The log-probability of each preferred answer minus that of the non-preferred one: (items,)."""
    scores = logits(model, batch)
    flat = F.cross_entropy(
        scores.flatten(0, 1).float(), batch.targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    preferred, other = -flat.view_as(batch.targets).sum(-1).view(2, batch.items)
    return preferred - other

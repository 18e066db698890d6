"""The losses: next-token cross-entropy on trained tokens, and DPO on preference pairs."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F

from services.trainer.domain.packing import MicroBatch
from services.trainer.engine.data.batches import Batch, Packer
from services.trainer.engine.data.dataset import Item
from services.trainer.engine.forward import Forward
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

    def sums(self, forward: Forward, batch: Batch) -> Sums:
        """Send a micro-batch through the model."""
        ...

    def each(self, forward: Forward, batch: Batch) -> Sums:
        """As `sums`, but the loss of each item, (items,), without gradient."""
        ...


class Supervised:
    """Cross-entropy per trained token; `correct` counts the tokens that greedy decoding would have chosen."""

    def weight(self, item: Item) -> int:
        return sum(sequence.trained_tokens for sequence in item)

    def sums(self, forward: Forward, batch: Batch) -> Sums:
        found = forward.losses(batch)
        return Sums(found.loss.sum(), found.correct.sum())

    def each(self, forward: Forward, batch: Batch) -> Sums:
        with torch.no_grad():
            found = forward.losses(batch)
        return Sums(batch.by_sequence(found.loss).sum(-1), found.correct.sum())


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

    def sums(self, forward: Forward, batch: Batch) -> Sums:
        losses, correct = self._losses(forward, batch)
        return Sums(losses.sum(), correct)

    def each(self, forward: Forward, batch: Batch) -> Sums:
        with torch.no_grad():
            return self._losses(forward, batch)

    def _losses(self, forward: Forward, batch: Batch) -> Sums:
        margin = _preference(forward, batch) - batch.references
        return Sums(-F.logsigmoid(self.beta * margin), (margin.detach() > 0).sum())


def preferences(forward: Forward, packer: Packer, memory: Memory) -> tuple[float, ...]:
    """How much the model prefers the preferred answer of each of the packer's pairs, in log-probability and without
    dropout. Each process of a group finds its part of them.

    Raises:
        InputError: `out_of_memory`.
    """

    pairs = range(len(packer.items))

    def measure(micro_tokens: int) -> Any:
        found = torch.zeros(len(pairs), dtype=torch.float64)

        def read(micro: MicroBatch) -> bool:
            batch = packer.pack(micro).to(memory.device)
            with memory.precision():
                found[list(micro.items)] = _preference(forward, batch).cpu().double()
            return True

        memory.each(packer.plan(memory.group.split(pairs, packer.lengths), micro_tokens), read)
        return found.to(memory.device)

    set_training(forward.model, False)
    with torch.no_grad():
        found = memory.within(measure)
        memory.group.sum(found)
    return tuple(found.tolist())


def _preference(forward: Forward, batch: Batch) -> Any:
    """The log-probability of each preferred answer minus that of the non-preferred one: (items,)."""
    preferred, other = batch.by_sequence(-forward.losses(batch).loss).unbind(-1)
    return preferred - other

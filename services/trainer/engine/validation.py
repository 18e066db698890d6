"""Validation: the same loss on unseen rows, without gradients or dropout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from services.trainer.domain.schedule import micro_batches
from services.trainer.engine.data.batches import collate, epoch_order
from services.trainer.engine.data.dataset import Dataset, Item
from services.trainer.engine.loss import Objective
from services.trainer.engine.model.adapter import set_training
from services.trainer.engine.model.memory import Memory

QUICK_ITEMS = 256  # size of the sample that is measured within an epoch; at the end of an epoch all items are measured


@dataclass(frozen=True)
class Measured:
    """Means over all trained tokens (supervised) or all pairs (DPO)."""

    loss: float
    accuracy: float


class Validator:
    """Measures a model on one validation set."""

    def __init__(
        self, model: Any, objective: Objective, validation: Dataset, *, pad_id: int, memory: Memory, seed: int
    ) -> None:
        self.model = model
        self.objective = objective
        self.pad_id = pad_id
        self.memory = memory
        self.everything = validation.items
        chosen = sorted(epoch_order(len(validation.items), seed, 0)[:QUICK_ITEMS])
        self.sample = [validation.items[index] for index in chosen]

    def measure(self, *, ends_epoch: bool) -> tuple[Measured, Measured | None]:
        """Measure the same sample every time, so that losses compare; at the end of an epoch also the whole set."""
        quick = self._mean(self.sample)
        if not ends_epoch:
            return quick, None
        return quick, quick if len(self.sample) == len(self.everything) else self._mean(self.everything)

    def _mean(self, items: Sequence[Item]) -> Measured:
        set_training(self.model, False)
        with torch.no_grad():
            return self.memory.within(lambda micro_tokens: self._mean_of_pieces(items, micro_tokens))

    def _mean_of_pieces(self, items: Sequence[Item], micro_tokens: int) -> Measured:
        device = self.memory.device
        lengths = [max(map(len, item)) for item in items]
        loss = torch.zeros((), dtype=torch.float64, device=device)
        correct = torch.zeros((), dtype=torch.float64, device=device)
        weight = 0
        for indexes in micro_batches(list(range(len(items))), lengths, micro_tokens):
            batch = collate([items[index] for index in indexes], self.pad_id)
            with self.memory.precision():
                sums = self.objective.sums(self.model, batch.to(device))
            loss += sums.loss
            correct += sums.correct
            weight += self.objective.weight(batch)
        return Measured(float(loss) / weight, float(correct) / weight)

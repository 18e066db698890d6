"""Validation: the same loss on unseen rows, without gradients or dropout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from services.trainer.domain.schedule import micro_batches
from services.trainer.engine.data.batches import Collator, epoch_order
from services.trainer.engine.data.dataset import Dataset
from services.trainer.engine.loss import Objective
from services.trainer.engine.model.adapter import set_training
from services.trainer.engine.model.memory import Memory

QUICK_ROWS = 256  # size of the sample that is measured within an epoch; at the end of an epoch all rows are measured


@dataclass(frozen=True)
class Measured:
    """Means over all trained tokens (supervised) or all pairs (DPO). `losses`: of each row, summed over its weight."""

    loss: float
    accuracy: float
    losses: tuple[float, ...]


class Validator:
    """Measures a model on one validation set. `references`: one per preference pair."""

    def __init__(
        self,
        model: Any,
        objective: Objective,
        validation: Dataset,
        *,
        pad_id: int,
        memory: Memory,
        seed: int,
        references: Sequence[float] | None = None,
    ) -> None:
        self.model = model
        self.objective = objective
        self.memory = memory
        self.validation = validation
        self.collate = Collator(validation.items, pad_id, references)
        self.lengths = validation.lengths
        self.weights = [sum(map(objective.weight, row)) for row in validation.rows]
        self.everything = list(range(len(validation.rows)))
        self.sample = sorted(epoch_order(len(validation.rows), seed, 0)[:QUICK_ROWS])

    @property
    def sample_weights(self) -> list[int]:
        return [self.weights[row] for row in self.sample]

    def tokens(self, *, ends_epoch: bool) -> float:
        """About how many tokens `measure` sends through the model."""
        rows = len(self.sample)
        if ends_epoch and rows != len(self.everything):
            rows += len(self.everything)
        return self.validation.tokens * rows / len(self.everything)

    def measure(self, *, ends_epoch: bool) -> tuple[Measured, Measured | None]:
        """Measure the same sample every time, so that losses compare; at the end of an epoch also the whole set."""
        quick = self._mean(self.sample)
        if not ends_epoch:
            return quick, None
        return quick, quick if len(self.sample) == len(self.everything) else self._mean(self.everything)

    def _mean(self, rows: list[int]) -> Measured:
        set_training(self.model, False)
        with torch.no_grad():
            return self.memory.within(lambda micro_tokens: self._mean_of_pieces(rows, micro_tokens))

    def _mean_of_pieces(self, rows: list[int], micro_tokens: int) -> Measured:
        device = self.memory.device
        losses: dict[int, float] = {}
        correct = torch.zeros((), dtype=torch.float64, device=device)
        for micro in micro_batches(self.validation.items_of(rows), self.lengths, micro_tokens):
            with self.memory.precision():
                each = self.objective.each(self.model, self.collate(micro).to(device))
            losses |= zip(micro, each.loss.tolist(), strict=True)
            correct += each.correct
        weight = sum(self.weights[row] for row in rows)
        in_order = tuple(sum(losses[item] for item in self.validation.items_of([row])) for row in rows)
        return Measured(sum(in_order) / weight, float(correct) / weight, in_order)

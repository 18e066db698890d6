"""Validation: the same loss on unseen rows, without gradients or dropout."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from services.trainer.engine.data.batches import Packer, epoch_order
from services.trainer.engine.data.dataset import Dataset
from services.trainer.engine.forward import Forward
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
    """Measures a model on one validation set. `packer`: of the items of `validation`."""

    def __init__(
        self,
        forward: Forward,
        objective: Objective,
        validation: Dataset,
        packer: Packer,
        *,
        memory: Memory,
        seed: int,
    ) -> None:
        self.forward = forward
        self.objective = objective
        self.memory = memory
        self.validation = validation
        self.packer = packer
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
        set_training(self.forward.model, False)
        with torch.no_grad():
            return self.memory.within(lambda micro_tokens: self._mean_of_pieces(rows, micro_tokens))

    def _mean_of_pieces(self, rows: list[int], micro_tokens: int) -> Measured:
        device = self.memory.device
        losses: dict[int, float] = {}
        correct = torch.zeros((), dtype=torch.float64, device=device)
        for micro in self.packer.plan(self.validation.items_of(rows), micro_tokens):
            with self.memory.precision():
                each = self.objective.each(self.forward, self.packer.pack(micro).to(device))
            losses |= zip(micro.items, each.loss.tolist(), strict=True)
            correct += each.correct
        weight = sum(self.weights[row] for row in rows)
        in_order = tuple(sum(losses[item] for item in self.validation.items_of([row])) for row in rows)
        return Measured(sum(in_order) / weight, float(correct) / weight, in_order)

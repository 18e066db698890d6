"""Validation: the same loss on unseen rows, without gradients or dropout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from services.trainer.domain.packing import MicroBatch
from services.trainer.domain.schedule import QUICK_ROWS
from services.trainer.engine.data.batches import Packer, epoch_order
from services.trainer.engine.data.dataset import Dataset
from services.trainer.engine.forward import Forward
from services.trainer.engine.loss import Objective
from services.trainer.engine.model.adapter import set_training
from services.trainer.engine.model.memory import Memory


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
            found = self.memory.within(lambda micro_tokens: self._sums(rows, micro_tokens))
        self.memory.group.sum(found)
        correct, *losses = found.tolist()
        weight = sum(self.weights[row] for row in rows)
        in_order = tuple(sum(losses[item] for item in self.validation.items_of([row])) for row in rows)
        return Measured(sum(in_order) / weight, correct / weight, in_order)

    def _sums(self, rows: list[int], micro_tokens: int) -> Any:
        """The part of this process: what was correct, then the loss of each item of the set; of others it is 0."""
        found = torch.zeros(1 + len(self.packer.items), dtype=torch.float64)
        mine = self.memory.group.split(self.validation.items_of(rows), self.packer.lengths)

        def read(micro: MicroBatch) -> bool:
            with self.memory.precision():
                each = self.objective.each(self.forward, self.packer.pack(micro).to(self.memory.device))
            found[[1 + item for item in micro.items]] = each.loss.cpu().double()
            found[0] += each.correct.cpu()
            return True

        self.memory.each(self.packer.plan(mine, micro_tokens), read)
        return found.to(self.memory.device)

"""One optimizer step: a batch is cut into micro-batches that fit into memory, and changes the adapter once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch

from services.trainer.domain.auto import Chosen
from services.trainer.domain.schedule import Steps, learning_rate, micro_batches
from services.trainer.engine import checkpoints
from services.trainer.engine.data.batches import Batch, collate, epoch_order
from services.trainer.engine.data.dataset import Dataset
from services.trainer.engine.loss import Objective
from services.trainer.engine.model.adapter import set_training, trainable
from services.trainer.engine.model.memory import Memory
from shared.errors import InputError


@dataclass(frozen=True)
class Stepped:
    """What one step did. `loss` and `accuracy` are means over the batch; `tokens` does not count padding."""

    loss: float
    accuracy: float
    grad_norm: float
    learning_rate: float
    tokens: int
    trained_tokens: int


class Stepper:
    """Takes the steps of one run. `stop` says whether the process should end; it is called before every micro-batch."""

    def __init__(
        self,
        model: Any,
        objective: Objective,
        train: Dataset,
        chosen: Chosen,
        *,
        pad_id: int,
        memory: Memory,
        stop: Callable[[], bool],
    ) -> None:
        self.model = model
        self.objective = objective
        self.train = train
        self.chosen = chosen
        self.pad_id = pad_id
        self.memory = memory
        self.stop = stop
        self.steps = Steps(len(train.items), chosen.batch_size.value, chosen.n_epochs.value)
        self.parameters = list(trainable(model).values())
        self.optimizer = torch.optim.AdamW(
            self.parameters, weight_decay=chosen.weight_decay.value, fused=memory.device.type == "cuda"
        )
        self._lengths = train.lengths
        self._order: tuple[int, list[int]] = (-1, [])

    def take(self, step: int) -> Stepped | None:
        """Take the step that follows `step` finished ones. None: the process was asked to stop, and nothing has
        changed.

        Raises:
            InputError: `out_of_memory` or `training_diverged`.
        """
        random_before = checkpoints.capture_random()
        rows = self._rows(step)
        gathered = self.memory.within(lambda micro_tokens: self._gather(rows, micro_tokens))
        if gathered is None:
            checkpoints.restore_random(random_before)
            return None
        batches, loss, correct, weight = gathered
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.chosen.max_grad_norm.value))
        if not (isfinite(loss) and isfinite(norm)):
            raise InputError(
                "training_diverged",
                f"the loss is no longer a number at step {step + 1}: lower hyperparameters.learning_rate_multiplier",
                "hyperparameters.learning_rate_multiplier",
            )
        rate = learning_rate(step, self.steps.total, self.chosen.learning_rate.value, self.chosen.warmup_ratio.value)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return Stepped(
            loss=loss / weight,
            accuracy=correct / weight,
            grad_norm=norm,
            learning_rate=rate,
            tokens=sum(batch.real_tokens for batch in batches),
            trained_tokens=sum(batch.trained_tokens for batch in batches),
        )

    def dry_run(self) -> None:
        """Send the largest micro-batch of the run forward and backward, so that memory does not run out later. Only the
        fit of the memory may change."""
        longest = sorted(range(len(self.train.items)), key=lambda index: -self._lengths[index])
        rows = longest[: self.steps.batch_size]

        def forward_and_backward(micro_tokens: int) -> None:
            set_training(self.model, True)
            batch = self._collate(next(micro_batches(rows, self._lengths, micro_tokens)))
            with self.memory.precision():
                loss = self.objective.sums(self.model, batch.to(self.memory.device)).loss
            loss.backward()

        random_before = checkpoints.capture_random()
        self.memory.within(forward_and_backward)
        checkpoints.restore_random(random_before)

    def _gather(self, rows: list[int], micro_tokens: int) -> tuple[list[Batch], float, float, int] | None:
        """Accumulate the gradient of the mean loss over the batch.

        Returns the micro-batches, the sum of the loss, the sum of correct predictions, and the weight that both are
        divided by. None: asked to stop.
        """
        set_training(self.model, True)
        self.optimizer.zero_grad(set_to_none=True)
        device = self.memory.device
        batches = [self._collate(micro) for micro in micro_batches(rows, self._lengths, micro_tokens)]
        weight = sum(self.objective.weight(batch) for batch in batches)
        loss = torch.zeros((), dtype=torch.float64, device=device)
        correct = torch.zeros((), dtype=torch.float64, device=device)
        for batch in batches:
            if self.stop():
                return None
            with self.memory.precision():
                sums = self.objective.sums(self.model, batch.to(device))
            (sums.loss / weight).backward()
            loss += sums.loss.detach()
            correct += sums.correct
        return batches, float(loss), float(correct), weight

    def _rows(self, step: int) -> list[int]:
        epoch, begin = self.steps.position(step)
        if self._order[0] != epoch:
            self._order = (epoch, epoch_order(len(self.train.items), self.chosen.seed.value, epoch))
        return self._order[1][begin : begin + self.steps.batch_size]

    def _collate(self, rows: list[int]) -> Batch:
        return collate([self.train.items[row] for row in rows], self.pad_id)

"""One optimizer step: a batch of rows changes the adapter once. Its items are cut into micro-batches that fit into
memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch

from services.trainer.domain.auto import Chosen
from services.trainer.domain.schedule import Steps, learning_rate, micro_batches
from services.trainer.engine import checkpoints
from services.trainer.engine.data.batches import Batch, Collator, epoch_order
from services.trainer.engine.data.dataset import Dataset
from services.trainer.engine.loss import Objective, Sums
from services.trainer.engine.model.adapter import set_training, trainable
from services.trainer.engine.model.memory import Memory


@dataclass(frozen=True)
class Stepped:
    """What one step did. `loss` and `accuracy` are means over the batch; `tokens` does not count padding.

    `skipped`: the loss or the norm of its gradient is not a finite number, so the adapter was left as it was.
    """

    loss: float
    accuracy: float
    grad_norm: float
    learning_rate: float
    tokens: int
    trained_tokens: int
    skipped: bool


class Stepper:
    """Takes the steps of one run. `references`: one per preference pair. `stop` says whether the process should end; it
    is called before every micro-batch."""

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
        references: Sequence[float] | None = None,
    ) -> None:
        self.model = model
        self.objective = objective
        self.train = train
        self.chosen = chosen
        self.memory = memory
        self.stop = stop
        self.collate = Collator(train.items, pad_id, references)
        self.steps = Steps(len(train.rows), chosen.batch_size.value, chosen.n_epochs.value)
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
            InputError: `out_of_memory`.
        """
        random_before = checkpoints.capture_random()
        items = self.items(step)
        rate = learning_rate(step, self.steps.total, self.chosen.learning_rate.value, self.chosen.warmup_ratio.value)
        stepped = self.memory.within(lambda micro_tokens: self._attempt(items, micro_tokens, rate))
        if stepped is None:
            checkpoints.restore_random(random_before)
        return stepped

    def items(self, step: int) -> list[int]:
        """The indexes of the items of all rows in the batch of a step."""
        epoch, begin = self.steps.position(step)
        if self._order[0] != epoch:
            self._order = (epoch, epoch_order(len(self.train.rows), self.chosen.seed.value, epoch))
        return self.train.items_of(self._order[1][begin : begin + self.steps.batch_size])

    def backward(self, batch: Batch, weight: int) -> Sums:
        """Send a micro-batch forward and backward; its gradient, divided by `weight`, is added to what is there."""
        with self.memory.precision():
            sums = self.objective.sums(self.model, batch.to(self.memory.device))
        (sums.loss / weight).backward()
        return sums

    def update(self, rate: float) -> None:
        """Change the adapter by its gradient. If memory runs out, adapter and optimizer are as they were before."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Memory is only needed for the state of the first step and for small temporaries, before the kernel that
        # changes adapter and moments in place. So what can be half done is that state, and the count of the steps.
        counters = [state["step"] for state in self.optimizer.state.values()]
        count = float(counters[0]) if counters else None
        try:
            self.optimizer.step()
        except torch.cuda.OutOfMemoryError:
            if count is None:
                self.optimizer.state.clear()
            for counter in counters:
                counter.fill_(count)
            raise

    def _attempt(self, items: list[int], micro_tokens: int, rate: float) -> Stepped | None:
        gathered = self._gather(items, micro_tokens)
        if gathered is None:
            return None
        batches, loss, correct, weight = gathered
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.chosen.max_grad_norm.value))
        finite = isfinite(loss) and isfinite(norm)
        if finite:
            self.update(rate)
        return Stepped(
            loss=loss / weight,
            accuracy=correct / weight,
            grad_norm=norm,
            learning_rate=rate,
            tokens=sum(batch.real_tokens for batch in batches),
            trained_tokens=sum(batch.trained_tokens for batch in batches) if finite else 0,
            skipped=not finite,
        )

    def _gather(self, items: list[int], micro_tokens: int) -> tuple[list[Batch], float, float, int] | None:
        """Accumulate the gradient of the mean loss over the batch.

        Returns the micro-batches, the sum of the loss, the sum of correct predictions, and the weight that both are
        divided by. None: asked to stop.
        """
        set_training(self.model, True)
        self.optimizer.zero_grad(set_to_none=True)
        device = self.memory.device
        batches = [self.collate(micro) for micro in micro_batches(items, self._lengths, micro_tokens)]
        weight = sum(self.objective.weight(self.train.items[item]) for item in items)
        loss = torch.zeros((), dtype=torch.float64, device=device)
        correct = torch.zeros((), dtype=torch.float64, device=device)
        for batch in batches:
            if self.stop():
                return None
            sums = self.backward(batch, weight)
            loss += sums.loss.detach()
            correct += sums.correct
        return batches, float(loss), float(correct), weight

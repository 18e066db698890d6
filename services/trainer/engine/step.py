"""One optimizer step: a batch of rows changes the adapter once. Its items are packed into micro-batches that fit into
memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch

from services.trainer.domain.auto import Chosen
from services.trainer.domain.schedule import Steps, learning_rate
from services.trainer.engine import checkpoints
from services.trainer.engine.data.ahead import Ahead
from services.trainer.engine.data.batches import Batch, Packer, epoch_order
from services.trainer.engine.data.dataset import Dataset
from services.trainer.engine.fast.graphs import Graphs
from services.trainer.engine.forward import Forward
from services.trainer.engine.loss import Objective, Sums
from services.trainer.engine.model.adapter import set_training, trainable
from services.trainer.engine.model.memory import Memory, others


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


@dataclass(frozen=True)
class _Gathered:
    """This process's part of a step: `total` holds the sums of the loss and of correct predictions, and the counts of
    tokens and trained tokens. `weight`: of the whole batch, by which loss and correct predictions are divided.
    `gradients`: see `Group.gradients`."""

    total: Any
    weight: int
    gradients: Any


class Stepper:
    """Takes the steps of one run. `packer`: of the items of `train`. `stop` says whether the process should end; it is
    called before every micro-batch. The batches of a step are made while the step before it runs."""

    def __init__(
        self,
        forward: Forward,
        objective: Objective,
        train: Dataset,
        packer: Packer,
        chosen: Chosen,
        *,
        memory: Memory,
        stop: Callable[[], bool],
        graphs: bool = False,
    ) -> None:
        self.forward = forward
        self.model = model = forward.model
        self.objective = objective
        self.train = train
        self.packer = packer
        self.chosen = chosen
        self.memory = memory
        self.group = memory.group
        self.stop = stop
        self.steps = Steps(len(train.rows), chosen.batch_size.value, chosen.n_epochs.value)
        self.parameters = list(trainable(model).values())
        self.optimizer = torch.optim.AdamW(
            self.parameters, weight_decay=chosen.weight_decay.value, fused=memory.device.type == "cuda"
        )
        self.graphs = Graphs(self._backward, self.parameters, memory.device) if graphs else None
        self._ahead = Ahead(self._batches)

    def take(self, step: int) -> Stepped | None:
        """Take the step that follows `step` finished ones. None: the process was asked to stop, and nothing has
        changed.

        Raises:
            InputError: `out_of_memory`.
        """
        self.group.seed(self.chosen.seed.value, step)
        random_before = checkpoints.capture_random()
        rate = learning_rate(step, self.steps.total, self.chosen.learning_rate.value, self.chosen.warmup_ratio.value)
        gathered = self.memory.within(lambda micro_tokens: self._gather(step, micro_tokens))
        if self.group.any(gathered is None):
            checkpoints.restore_random(random_before)
            return None
        assert gathered is not None
        return self._taken(gathered, rate)

    def items(self, step: int) -> list[int]:
        """The indexes of the items of all rows in the batch of a step."""
        epoch, begin = self.steps.position(step)
        order = epoch_order(len(self.train.rows), self.chosen.seed.value, epoch)
        return self.train.items_of(order[begin : begin + self.steps.batch_size])

    def backward(self, batch: Batch, weight: int) -> Sums:
        """Send a micro-batch forward and backward; its gradient, divided by `weight`, is added to what is there."""
        fit = self.memory.fit
        if self.graphs is not None:
            self.graphs.keep_only(fit)
            if not fit.recompute:
                return self.graphs.backward(batch, weight)
        return self._backward(batch.to(self.memory.device), weight)

    def _backward(self, batch: Batch, weight: Any) -> Sums:
        with self.memory.precision():
            sums = self.objective.sums(self.forward, batch)
        (sums.loss / weight).backward()
        return sums

    def update(self, rate: float) -> None:
        """Change the adapter by its gradient. If memory runs out, adapter and optimizer are as they were before, and it
        is tried once more in the memory that can be freed."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Memory is only needed for the state of the first step and for small temporaries, before the kernel that
        # changes adapter and moments in place. So what can be half done is that state, and the count of the steps.
        counters = [state["step"] for state in self.optimizer.state.values()]
        count = float(counters[0]) if counters else None
        for last in (False, True):
            try:
                self.optimizer.step()
                return
            except torch.cuda.OutOfMemoryError:
                if count is None:
                    self.optimizer.state.clear()
                for counter in counters:
                    counter.fill_(count)
                if last:
                    raise
            torch.cuda.empty_cache()

    def _batches(self, key: tuple[int, int]) -> list[Batch]:
        """Those of a step that are this process's, with so many tokens in each. Runs on a thread, so it draws no random
        numbers."""
        step, micro_tokens = key
        mine = self.group.split(self.items(step), self.packer.lengths)
        batches = [self.packer.pack(micro) for micro in self.packer.plan(mine, micro_tokens)]
        return [batch.pinned() for batch in batches] if self.memory.device.type == "cuda" else batches

    def _gather(self, step: int, micro_tokens: int) -> _Gathered | None:
        """Accumulate this process's part of the gradient of the mean loss over the batch. None: asked to stop."""
        if not self.model.training:  # it walks through thousands of modules, and only a validation is between steps
            set_training(self.model, True)
        self.optimizer.zero_grad(set_to_none=self.graphs is None)
        following = (step + 1, micro_tokens) if step + 1 < self.steps.total else None
        batches = self._ahead.take((step, micro_tokens), following)
        weight = sum(self.objective.weight(self.train.items[item]) for item in self.items(step))
        total = torch.zeros(4, dtype=torch.float64, device=self.memory.device)

        def go_through(batch: Batch) -> bool:
            if self.stop():
                return False
            sums = self.backward(batch, weight)
            total[0] += sums.loss.detach()
            total[1] += sums.correct
            return True

        if not self.memory.each(batches, go_through, returns=True):
            return None
        total[2] += sum(batch.real_tokens for batch in batches)
        total[3] += sum(batch.trained_tokens for batch in batches)
        return _Gathered(total, weight, self.group.gradients(self.parameters))

    def _taken(self, gathered: _Gathered, rate: float) -> Stepped:
        """Change the adapter by the gradient of the whole batch, in all processes alike."""
        self.group.sum_gradients(gathered.gradients, self.parameters)
        self.group.sum(gathered.total)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.chosen.max_grad_norm.value))
        loss, correct, tokens, trained_tokens = gathered.total.tolist()
        finite = isfinite(loss) and isfinite(norm)
        if finite:
            try:
                self.update(rate)
            except torch.cuda.OutOfMemoryError:
                raise self.memory.exhausted(others(self.memory.device)) from None
        return Stepped(
            loss=loss / gathered.weight,
            accuracy=correct / gathered.weight,
            grad_norm=norm,
            learning_rate=rate,
            tokens=int(tokens),
            trained_tokens=int(trained_tokens) if finite else 0,
            skipped=not finite,
        )

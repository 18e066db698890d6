"""One optimizer step: a batch of rows changes the adapter once. Its items are packed into micro-batches that fit into
memory.

A GPU has something to do all the time: once the update of a step is launched, the first micro-batch of the next one is,
too, and only then the process waits for the numbers of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch

from services.trainer.domain.auto import Chosen
from services.trainer.domain.fits import Fit
from services.trainer.domain.schedule import Steps, learning_rate
from services.trainer.engine import checkpoints
from services.trainer.engine.checkpoints import Tensors
from services.trainer.engine.data.ahead import Ahead
from services.trainer.engine.data.batches import Batch, Packer, epoch_order
from services.trainer.engine.data.dataset import Dataset
from services.trainer.engine.fast.adapters.fused import groups_of
from services.trainer.engine.fast.adapters.small import Smalls
from services.trainer.engine.fast.graphs import Graphs
from services.trainer.engine.forward import Forward
from services.trainer.engine.loss import Objective, Sums
from services.trainer.engine.model.adapter import set_training, trainable
from services.trainer.engine.model.memory import Memory, others
from services.trainer.engine.model.update import Watch, adamw, update


@dataclass(frozen=True)
class Stepped:
    """What one step did. `loss` and `accuracy` are means over the batch; `tokens` does not count padding. `seconds`:
    from the end of the step before, or from its own begin if something else was between them, to its end.

    `skipped`: the loss or the norm of its gradient is not a finite number, so the adapter was left as it was.
    """

    loss: float
    accuracy: float
    grad_norm: float
    learning_rate: float
    tokens: int
    trained_tokens: int
    skipped: bool
    seconds: float


@dataclass(frozen=True)
class _Begun:
    """This process's part of a step, whose gradient is being added up. `left`: the micro-batches still to come.
    `weight`: of the whole batch, by which loss and correct predictions are divided. `total`: their sums so far, on the
    device, and the counts of tokens and trained tokens. `fit`: what memory had for it when it began."""

    step: int
    fit: Fit
    left: Sequence[Batch]
    weight: int
    total: Any


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
        self.optimizer = adamw(self.parameters, chosen.weight_decay.value)
        self.smalls = Smalls(groups_of(model), memory.dtype)
        self.graphs = Graphs(self._backward, self.parameters, memory.device) if graphs else None
        self._batches_ahead = Ahead(self._batches)
        self._ahead: tuple[_Begun, Tensors] | None = None
        """The step that follows, if its first micro-batch was launched, and the random state before that."""
        self._watch = Watch(memory.device)

    def take(self, step: int, *, goes_on: bool = False) -> Stepped | None:
        """Take the step that follows `step` finished ones. `goes_on`: the next call takes the one after it, and nothing
        else is to do before. None: the process was asked to stop, and nothing has changed.

        Raises:
            InputError: `out_of_memory`.
        """
        if self._ahead is not None and (self._ahead[0].step, self._ahead[0].fit) != (step, self.memory.fit):
            self.forget_ahead()
        if self._ahead is not None:
            random_before = self._ahead[1]
        else:
            self._watch.begin()
            random_before = self._random_of(step)
        gathered = self.memory.within(lambda micro_tokens: self._gather(step, micro_tokens), random_before)
        if self.group.any(gathered is None):
            checkpoints.restore_random(random_before)
            return None
        assert gathered is not None
        begun, gradients = gathered
        rate = learning_rate(step, self.steps.total, self.chosen.learning_rate.value, self.chosen.warmup_ratio.value)
        self._change(begun, gradients, rate)
        # All processes go through a divided base together, so no pass is made that may be repeated.
        if goes_on and step + 1 < self.steps.total and self.memory.shards is None:
            self._begin_ahead(step + 1)
        return self._stepped(begun.weight, rate)

    def forget_ahead(self) -> None:
        """Let it be as if nothing of the next step was launched: something else needs the state between the two."""
        if self._ahead is not None:
            checkpoints.restore_random(self._ahead[1])
            self._ahead = None

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

    def _batches(self, key: tuple[int, int]) -> tuple[list[Batch], int]:
        """Those of a step that are this process's, with so many tokens in each, and the weight of the whole step. Runs
        on a thread, so it draws no random numbers."""
        step, micro_tokens = key
        items = self.items(step)
        mine = self.group.split(items, self.packer.lengths)
        batches = [self.packer.pack(micro) for micro in self.packer.plan(mine, micro_tokens)]
        weight = sum(self.objective.weight(self.train.items[item]) for item in items)
        return [batch.pinned() for batch in batches] if self.memory.device.type == "cuda" else batches, weight

    def _random_of(self, step: int) -> Tensors:
        """The random state that a step begins with."""
        self.group.seed(self.chosen.seed.value, step)
        return checkpoints.capture_random()

    def _gather(self, step: int, micro_tokens: int) -> tuple[_Begun, Any] | None:
        """Accumulate this process's part of the gradient of the mean loss over the batch. Returns also what
        `Group.gradients` does. None: asked to stop."""
        ahead, self._ahead = self._ahead, None
        begun = ahead[0] if ahead is not None else self._begin(step, micro_tokens)
        if not self.memory.each(begun.left, lambda batch: self._add(begun, batch), returns=True):
            return None
        return begun, self.group.gradients(self.parameters)

    def _begin(self, step: int, micro_tokens: int) -> _Begun:
        self.optimizer.zero_grad(set_to_none=self.graphs is None)
        following = (step + 1, micro_tokens) if step + 1 < self.steps.total else None
        batches, weight = self._batches_ahead.take((step, micro_tokens), following)
        total = torch.zeros(4, dtype=torch.float64, device=self.memory.device)
        total[2] += sum(batch.real_tokens for batch in batches)
        total[3] += sum(batch.trained_tokens for batch in batches)
        return _Begun(step, self.memory.fit, batches, weight, total)

    def _add(self, begun: _Begun, batch: Batch) -> bool:
        """Add the gradient of a micro-batch. False: asked to stop, and it was left out."""
        if self.stop():
            return False
        if not self.model.training:  # after a validation; it walks through thousands of modules, so not each time
            set_training(self.model, True)
        sums = self.backward(batch, begun.weight)
        begun.total[0] += sums.loss.detach()
        begun.total[1] += sums.correct
        return True

    def _begin_ahead(self, step: int) -> None:
        """Launch the first micro-batch of a step. If memory does not hold it, or the process is asked to stop, the step
        begins when it is taken, as if this had not been tried."""
        random_before = self._random_of(step)
        with suppress(torch.cuda.OutOfMemoryError):
            begun = self._begin(step, self.memory.fit.micro_tokens)
            if begun.left and self._add(begun, begun.left[0]):
                self._ahead = replace(begun, left=begun.left[1:]), random_before
                return
        checkpoints.restore_random(random_before)

    def _change(self, begun: _Begun, gradients: Any, rate: float) -> None:
        """Change the adapter by the gradient of the whole batch, in all processes alike, if it is a finite number."""
        self.group.sum_gradients(gradients, self.parameters)
        self.group.sum(begun.total)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.chosen.max_grad_norm.value).double()
        skip = (begun.total[0] + norm).isfinite().logical_not()
        try:
            update(self.optimizer, rate, skip.float())
        except torch.cuda.OutOfMemoryError:
            raise self.memory.exhausted(others(self.memory.device)) from None
        self.smalls.renew()
        self._watch.note(torch.cat([begun.total, norm[None], skip[None]]))

    def _stepped(self, weight: int, rate: float) -> Stepped:
        """Wait for the numbers of the step that was noted last."""
        (loss, correct, tokens, trained_tokens, norm, skipped), seconds = self._watch.read()
        return Stepped(
            loss=loss / weight,
            accuracy=correct / weight,
            grad_norm=norm,
            learning_rate=rate,
            tokens=int(tokens),
            trained_tokens=0 if skipped else int(trained_tokens),
            skipped=bool(skipped),
            seconds=seconds,
        )

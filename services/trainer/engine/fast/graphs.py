"""Micro-batches of small bases as CUDA graphs: what a forward and a backward pass launch is recorded once for each
shape of a micro-batch, and launched at once from then on.

A step of a small base is thousands of kernels that take less time than the process needs to launch them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import torch

from services.trainer.domain.fits import Fit
from services.trainer.engine.data.batches import Batch
from services.trainer.engine.loss import Sums

MOST = 64
"""So many shapes are recorded; others run as they are."""


class Graphs:
    """`backward(batch, weight)` sends a micro-batch on the device forward and backward, and adds the gradient of its
    loss, divided by `weight`, to those of `parameters`. It must draw no random numbers."""

    def __init__(self, backward: Callable[[Batch, Any], Sums], parameters: Sequence[Any], device: Any) -> None:
        self.refused: str | None = None
        """Why nothing is recorded any more; None: it is."""
        self._fit: Fit | None = None
        self._backward = backward
        self._parameters = parameters
        self._device = device
        self._seen: set[Any] = set()
        self._recorded: dict[Any, _Recorded] = {}
        self._gradients = [torch.zeros_like(parameter) for parameter in parameters]

    def backward(self, batch: Batch, weight: int) -> Sums:
        """As the `backward` that was given, of a micro-batch in pinned memory. What it returns holds until the next
        call."""
        if self.refused is not None:
            return self._backward(batch.to(self._device), weight)
        self._own_gradients()
        shape = _shape(batch)
        if shape not in self._recorded:
            if shape not in self._seen or len(self._recorded) == MOST:  # the first one also warms its kernels up
                self._seen.add(shape)
                return self._backward(batch.to(self._device), weight)
            try:
                self._recorded[shape] = self._record(batch)
            except RuntimeError as error:  # no memory for it, or something that cannot be recorded
                self.clear()
                self.refused = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
                return self._backward(batch.to(self._device), weight)
        return self._recorded[shape].replay(batch, weight)

    @property
    def outcome(self) -> str:
        """What came of it, for people."""
        if self.refused is not None:
            return f"given up, and launched as usual: {self.refused}"
        return f"recorded for {len(self._recorded)} shapes of micro-batches"

    def keep_only(self, fit: Fit) -> None:
        """Give the memory back of what was recorded for another fit: it was too much."""
        if fit != self._fit and self._recorded:
            self.clear()
            torch.cuda.empty_cache()
        self._fit = fit

    def clear(self) -> None:
        """Forget all that was recorded."""
        self._recorded.clear()
        self._seen.clear()

    def _own_gradients(self) -> None:
        """What is recorded adds to the gradients where they lay."""
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            if parameter.grad is not gradient:
                gradient.zero_() if parameter.grad is None else gradient.copy_(parameter.grad)
                parameter.grad = gradient

    def _record(self, batch: Batch) -> _Recorded:
        first = next(iter(self._recorded.values()), None)
        torch.cuda.empty_cache()  # a recorded graph takes its memory from elsewhere
        return _Recorded(batch.to(self._device), self._backward, first)


class _Recorded:
    """One shape: a batch that others are copied into, and what is launched with it. What follows `first` uses its
    memory, because one runs at a time."""

    def __init__(self, batch: Batch, backward: Callable[[Batch, Any], Sums], first: _Recorded | None) -> None:
        self._batch = replace(batch, **{name: tensor.clone() for name, tensor in _tensors(batch)})
        self._weight = torch.ones((), device=batch.tokens.device)
        self.graph = torch.cuda.CUDAGraph()
        self.stream: Any = torch.cuda.Stream() if first is None else first.stream
        pool = None if first is None else first.graph.pool()
        # Other threads make the next batches and write checkpoints meanwhile.
        with torch.cuda.graph(self.graph, pool=pool, stream=self.stream, capture_error_mode="thread_local"):
            self._sums = backward(self._batch, self._weight)

    def replay(self, batch: Batch, weight: int) -> Sums:
        for name, tensor in _tensors(batch):
            getattr(self._batch, name).copy_(tensor, non_blocking=True)
        self._weight.fill_(weight)
        self.graph.replay()
        return self._sums


def _tensors(batch: Batch) -> list[tuple[str, Any]]:
    values = ((field.name, getattr(batch, field.name)) for field in fields(batch))
    return [(name, value) for name, value in values if torch.is_tensor(value)]


def _shape(batch: Batch) -> Any:
    """What must be the same for two micro-batches to launch the same."""
    return (*((name, tuple(tensor.shape)) for name, tensor in _tensors(batch)), batch.longest)

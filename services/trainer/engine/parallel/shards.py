"""The frozen weights of a base divided among the processes of a group, where one GPU does not hold them all: each keeps
a part of every decoder layer, and all of them put a layer together for as long as they compute it.

torch's FSDP (`fully_shard`) is not used for that. It divides parameters of one type, registered in modules, and is made
for weights that change: gradients to reduce, copies in other types, states of an optimizer. The weights here are frozen
bytes in several tensors of several types (4 bits with two levels of scales, 8 bits twice), used within an operation of
our own, and the adapter stays whole in each process. What is left of it is this: the tensors of a layer lie behind each
other in one piece of memory, of which each process keeps an equal part, whatever the types are. One collective call
gathers the layer into one of two buffers, and views of that are the weights. So memory is that of the parts and of two
layers, and is taken once.

A pass goes up through the layers and, if there is a gradient, down again. The next layer of the walk is gathered while
one is computed; where the walk turns, the layer is still there. No hooks of modules are needed: a weight asks for its
layer whenever it is multiplied, so recomputed activations need nothing else. NCCL gathers on a stream of its own, after
what was launched before the call, so a buffer is not overwritten while it is read.

All processes must make the same passes in the same order. Who has fewer micro-batches than others, or runs out of
memory in one, goes along: it walks through the layers without computing (`each`).

Embeddings and head stay whole: of a base of 70 G parameters they are 4 GB, and buffers that hold one of them would need
as much on two GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from services.trainer.engine.fast.frozen import Divisible, Frozen
from services.trainer.engine.parallel.group import Group
from shared.errors import InputError

T = TypeVar("T")

ALIGNED = 256
"""Bytes that tensors begin at multiples of, which all kernels are content with."""


@dataclass(frozen=True)
class _Placed:
    """Where a tensor lies in its layer."""

    begin: int
    size: int
    shape: tuple[int, ...]
    dtype: Any

    def within(self, layer: Any) -> Any:
        return layer[self.begin : self.begin + self.size].view(self.dtype).view(self.shape)


@dataclass
class _Layer:
    """`part`: what this process keeps of it, (bytes,). `weights`: without their tensors, each with where these lie."""

    part: Any
    weights: list[tuple[Divisible, list[_Placed]]]


class ShardedWeight:
    """A weight whose layer is put together for each product."""

    def __init__(self, shards: Shards, layer: int, index: int) -> None:
        self._shards, self._layer, self._index = shards, layer, index

    def forward(self, rows: Any, low: Any, up: Any) -> Any:
        return self.here().forward(rows, low, up)

    def read(self, rows: Any) -> Any:
        return self.here().read(rows)

    def backward(self, slope: Any, onto: Any = None) -> Any:
        return self.here().backward(slope, onto)

    def here(self) -> Frozen:
        return self._shards.layer(self._layer)[self._index]

    def restored(self, dtype: Any) -> Frozen:
        return self.here().restored(dtype)


class Shards:
    """The layers of a base, divided among `of` processes, of which this one has the given number."""

    def __init__(self, number: int, of: int, layers: int) -> None:
        self._number, self._of = number, of
        self._layers: list[_Layer | None] = [None] * layers
        self._last = layers - 1
        self._group: Group | None = None
        self._buffers: list[Any] = []
        self._views: dict[tuple[int, int], list[Frozen]] = {}
        self._at = self._coming = -1
        self._buffer = 0
        self._arrived: Callable[[], None] = lambda: None
        self._returns, self._top = False, self._last
        self._passes = 0
        self.rounds = 0
        """How often `each` was called."""

    @property
    def kept_bytes(self) -> int:
        """Of the weights, those that this process keeps."""
        return sum(layer.part.numel() for layer in self._layers if layer is not None)

    @property
    def buffer_bytes(self) -> int:
        """Of the layers that are together at a time."""
        return sum(buffer.numel() for buffer in self._buffers)

    def divide(self, number: int, weights: Sequence[Divisible]) -> list[ShardedWeight]:
        """Keep this process's part of a layer with these weights, and let go of the rest."""
        placed, pieces, end = [], [], 0
        for weight in weights:
            places = []
            for tensor in weight.tensors():
                raw = tensor.detach().contiguous().view(-1).view(torch.uint8)
                places.append(_Placed(end, raw.numel(), tuple(tensor.shape), tensor.dtype))
                pieces.append(torch.nn.functional.pad(raw, (0, -raw.numel() % ALIGNED)))
                end += pieces[-1].numel()
            placed.append((weight.over([None] * len(places)), places))
        whole = torch.cat(pieces)
        size = -(-end // (ALIGNED * self._of)) * ALIGNED
        part = torch.zeros(size, dtype=torch.uint8, device=whole.device)
        mine = whole[self._number * size : (self._number + 1) * size]
        part[: mine.numel()].copy_(mine)
        self._layers[number] = _Layer(part, placed)
        return [ShardedWeight(self, number, index) for index in range(len(placed))]

    def join(self, group: Group, model: Any) -> None:
        """Let the weights be used from here on: `model` makes the passes, in all processes of `group`."""
        self._group = group
        parts = [layer.part for layer in self._layers if layer is not None]
        size = max(part.numel() for part in parts) * self._of
        self._buffers = [torch.empty(size, dtype=torch.uint8, device=parts[0].device) for _ in range(2)]
        model.register_forward_pre_hook(lambda *_: self._begin(returns=torch.is_grad_enabled()))

    def each(self, items: Sequence[T], work: Callable[[T], bool], *, returns: bool) -> bool:
        """Call `work` with each of `items`, which makes one pass, until it returns False instead. Returns whether it
        did all. All processes call this together, with other items; each makes as many passes as the one with the most.

        Raises:
            OutOfMemoryError: of `work`, when the others do not wait for this process any more.
        """
        assert self._group is not None
        self.rounds += 1
        wanted = self._passes + self._group.most(len(items))
        try:
            for item in items:
                if not work(item):
                    self._go_along(wanted, returns=returns)
                    return False
                self._finish()
        except torch.cuda.OutOfMemoryError:
            self._finish()
            self._go_along(wanted, returns=returns)
            raise
        self._go_along(wanted, returns=returns)
        return True

    def layer(self, number: int) -> list[Frozen]:
        """The weights of a layer, in the order in which they were given; they hold until the next layer is asked for.

        Raises:
            InputError: `unsupported_base`: the base does not go through its layers one after the other.
            ProcessLost: another process has ended, or hangs.
        """
        self._check(number)
        if number != self._at:
            if number != self._coming:
                self._gather(number)
            self._arrived()
            down = number < self._at
            self._at, self._coming, self._buffer = number, -1, 1 - self._buffer
            self._top = max(self._top, number)
            if (following := self._following(number, down=down)) != number:
                self._gather(following)
        self._top = max(self._top, number)
        return self._views_of(number)

    def _begin(self, *, returns: bool) -> None:
        """A pass begins. `returns`: it goes down again."""
        self._returns, self._top = returns, -1
        self._passes += 1

    def _finish(self) -> None:
        """Walk to the end of the pass, from wherever the model left it: it may not ask for the lowest layers on its way
        down, if no adapter is below."""
        for number in range(self._top + 1, self._last + 1):
            self.layer(number)
        if self._returns:
            for number in range(self._at - 1, -1, -1):
                self.layer(number)

    def _go_along(self, wanted: int, *, returns: bool) -> None:
        while self._passes < wanted:
            self._begin(returns=returns)
            self._finish()

    def _check(self, number: int) -> None:
        turned = self._returns and self._top == self._last
        if number not in ((self._at - 1, self._at) if turned else (self._top, self._top + 1)):
            raise InputError(
                "unsupported_base",
                "the base does not go through its layers one after the other, so its weights cannot be divided among "
                "GPUs: choose one that a single GPU holds",
                "model",
            )

    def _following(self, number: int, *, down: bool) -> int:
        """The layer after this one in the walk; at its end, the second of the next: the first is the same."""
        if self._last == 0:
            return 0
        if down and self._returns:
            return number - 1 if number else 1
        if number < self._last:
            return number + 1
        return number - 1 if self._returns else 0

    def _gather(self, number: int) -> None:
        """Begin to put a layer together, in the buffer that is not read."""
        assert self._group is not None
        if self._coming >= 0:
            self._arrived()
        layer = self._layers[number]
        assert layer is not None
        whole = self._buffers[1 - self._buffer][: layer.part.numel() * self._of]
        self._arrived, self._coming = self._group.gather(whole, layer.part), number

    def _views_of(self, number: int) -> list[Frozen]:
        key = (number, self._buffer)
        if key not in self._views:
            layer, buffer = self._layers[number], self._buffers[self._buffer]
            assert layer is not None
            self._views[key] = [
                weight.over([place.within(buffer) for place in places]) for weight, places in layer.weights
            ]
        return self._views[key]

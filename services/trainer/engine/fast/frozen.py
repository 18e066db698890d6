"""The frozen weight of a linear layer, as it lies in memory: plain, in 4 bits (nf4) or in 8 (fp8). Each adds the
adapter's small product to its own large one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol, Self

import torch

from services.trainer.engine.fast.adapters import sums
from services.trainer.engine.fast.float8 import Float8Linear, Quantized, product, quantized


class Frozen(Protocol):
    """W, of (outputs, inputs). All other matrices have the type that is computed in."""

    def read(self, rows: Any) -> Any:
        """`rows`, (tokens, inputs), as `forward` multiplies them: several weights of one kind may share that."""
        ...

    def forward(self, rows: Any, low: Any, up: Any) -> Any:
        """`rows` Wᵀ + `low` `up`ᵀ; `low` may be None, for 0. `rows`: (tokens, inputs), or what `read` makes of them;
        `low`: (tokens, rank), `up`: (outputs, rank)."""
        ...

    def backward(self, slope: Any, onto: Any = None) -> Any:
        """`slope` W, (tokens, inputs), of `slope`, (tokens, outputs). It is added to `onto`, in place, if that is
        given."""
        ...

    def here(self) -> Frozen:
        """The weight itself, wherever it lies: it may be put together for that."""
        ...

    def restored(self, dtype: Any) -> Frozen:
        """The same for several products in `dtype`: what each of them would do with the weight is done once."""
        ...


def back_through(weights: Sequence[Frozen], slopes: Sequence[Any], low: Any, down: Any) -> Any:
    """The sum of each of `slopes`, (tokens, outputs), times its W, and of `low` `down`: (tokens, inputs). `low`:
    (tokens, rank), `down`: (rank, inputs)."""
    there = [weight.here() for weight in weights]
    if all(isinstance(weight, EightBits) for weight in there):  # these products cannot add to what is there
        first, *others = (weight.backward(slope) for weight, slope in zip(there, slopes, strict=True))
        return sums.add_(first, low, down, others)
    found = low @ down
    for weight, slope in zip(there, slopes, strict=True):
        found = weight.backward(slope, found)
    return found


class Divisible(Frozen, Protocol):
    """One that may lie elsewhere in memory, too."""

    def tensors(self) -> list[Any]:
        """All that grows with the weight."""
        ...

    def over(self, tensors: Sequence[Any]) -> Self:
        """The same weight, whose `tensors` are these."""
        ...


class Plain:
    """A weight that is multiplied as it is."""

    def __init__(self, weight: Any) -> None:
        self._weight = weight

    def dense(self, dtype: Any) -> Any:
        """The weight itself, for the time of one product."""
        return self._weight.to(dtype)

    def read(self, rows: Any) -> Any:
        return rows

    # The large product adds to the small one while it is written.

    def forward(self, rows: Any, low: Any, up: Any) -> Any:
        weight = self.dense(rows.dtype).t()
        return rows @ weight if low is None else (low @ up.t()).addmm_(rows, weight)

    def backward(self, slope: Any, onto: Any = None) -> Any:
        weight = self.dense(slope.dtype)
        return slope @ weight if onto is None else onto.addmm_(slope, weight)

    def here(self) -> Self:
        return self

    def restored(self, dtype: Any) -> Frozen:
        return Plain(self.dense(dtype))

    def tensors(self) -> list[Any]:
        return [self._weight]

    def over(self, tensors: Sequence[Any]) -> Self:
        found = copy.copy(self)
        found._weight = tensors[0]
        return found


class FourBits(Plain):
    """A weight of bitsandbytes, with its state."""

    def __init__(self, packed: Any, state: Any) -> None:
        super().__init__(packed)
        self._state = state
        self._stays, self._restored = False, None

    def stay_restored(self, stays: bool) -> None:
        """Whether the weight, once it was restored, stays in memory as it is multiplied."""
        self._stays = stays
        if not stays:
            self._restored = None

    def dense(self, dtype: Any) -> Any:
        found = self._restored
        if found is None or found.dtype != dtype:
            found = self._dense(dtype)
        if self._stays:
            self._restored = found
        return found

    def _dense(self, dtype: Any) -> Any:
        state = self._state
        scales = state.absmax
        if state.nested:
            inner = state.state2
            restore = torch.ops.bitsandbytes.dequantize_blockwise.default  # without a search for the overload
            scales = restore(scales, inner.absmax, inner.code, inner.blocksize, torch.float32) + state.offset
        restore = torch.ops.bitsandbytes.dequantize_4bit.default
        return restore(self._weight, scales, state.blocksize, state.quant_type, tuple(state.shape), dtype)

    def tensors(self) -> list[Any]:
        state = self._state
        return [self._weight, state.absmax, *([state.state2.absmax] if state.nested else [])]

    def over(self, tensors: Sequence[Any]) -> Self:
        found = super().over(tensors)
        found._state = copy.copy(self._state)
        found._state.absmax = tensors[1]
        if found._state.nested:
            found._state.state2 = copy.copy(self._state.state2)
            found._state.state2.absmax = tensors[2]
        return found


class EightBits:
    """The weight of a `Float8Linear`."""

    def __init__(self, rows: Any, row_scales: Any, columns: Any, column_scales: Any) -> None:
        self._rows, self._columns = (rows, row_scales), (columns, column_scales)

    @classmethod
    def of(cls, layer: Float8Linear) -> Self:
        return cls(layer.rows, layer.row_scales, layer.columns, layer.column_scales)

    def read(self, rows: Any) -> Quantized:
        return quantized(rows)

    def forward(self, rows: Any, low: Any, up: Any) -> Any:
        found = product(rows, *self._rows)
        return found if low is None else sums.add_(found, low, up.t())

    def backward(self, slope: Any, onto: Any = None) -> Any:
        found = product(slope, *self._columns)
        return found if onto is None else onto.add_(found)

    def here(self) -> Self:
        return self

    def restored(self, dtype: Any) -> Frozen:
        return self

    def tensors(self) -> list[Any]:
        return [*self._rows, *self._columns]

    def over(self, tensors: Sequence[Any]) -> Self:
        return type(self)(*tensors)


class FrozenLinear(torch.nn.Linear):  # type: ignore[misc]
    """A linear layer that keeps its weight elsewhere, as `frozen_weight`; its `weight` has the shape only."""

    frozen_weight: Frozen

    def forward(self, values: Any) -> Any:
        if torch.is_autocast_enabled(values.device.type):
            values = values.to(torch.get_autocast_dtype(values.device.type))
        found = _Product.apply(values, self.frozen_weight)
        return found if self.bias is None else found + self.bias.to(found.dtype)


class _Product(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, values: Any, weight: Frozen) -> Any:
        ctx.weight = weight
        found = weight.forward(values.reshape(-1, values.shape[-1]), None, None)
        return found.view(*values.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        slope = gradients[0]
        found = ctx.weight.backward(slope.reshape(-1, slope.shape[-1]))
        return found.view(*slope.shape[:-1], -1), None


def stay_restored(model: Any, stays: bool) -> None:
    """Whether the weights of `model` in 4 bits also stay in memory as they are multiplied."""
    for module in model.modules():
        if isinstance(weight := getattr(module, "frozen_weight", None), FourBits):
            weight.stay_restored(stays)


def frozen(layer: Any) -> Frozen | None:
    """The weight of a linear layer; None: it is of a kind that is not known here."""
    if isinstance(layer, FrozenLinear):
        return layer.frozen_weight
    if isinstance(layer, Float8Linear):
        return EightBits.of(layer)
    if type(layer) is torch.nn.Linear:
        return Plain(layer.weight)
    state = getattr(getattr(layer, "weight", None), "quant_state", None)
    if type(layer).__name__ != "Linear4bit" or state is None or layer.weight.shape[0] == 1:
        return None
    return FourBits(layer.weight.data, state)

"""The frozen weight of a linear layer, as it lies in memory: plain, in 4 bits (nf4) or in 8 (fp8). Each adds the
adapter's small product to its own large one."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from services.trainer.engine.fast.float8 import Float8Linear


class Frozen(Protocol):
    """W, of (outputs, inputs). All other matrices have the type that is computed in."""

    def forward(self, rows: Any, low: Any, up: Any) -> Any:
        """`rows` Wᵀ + `low` `up`ᵀ. `rows`: (tokens, inputs), `low`: (tokens, rank), `up`: (outputs, rank)."""
        ...

    def backward(self, slope: Any, low: Any, down: Any) -> Any:
        """`slope` W + `low` `down`; `low` may be None, for 0. `slope`: (tokens, outputs), `down`: (rank, inputs)."""
        ...


class Plain:
    """A weight that is multiplied as it is."""

    def __init__(self, weight: Any) -> None:
        self._weight = weight

    def dense(self, dtype: Any) -> Any:
        """The weight itself, for the time of one product."""
        return self._weight.to(dtype)

    # The large product adds to the small one while it is written.

    def forward(self, rows: Any, low: Any, up: Any) -> Any:
        return (low @ up.t()).addmm_(rows, self.dense(rows.dtype).t())

    def backward(self, slope: Any, low: Any, down: Any) -> Any:
        weight = self.dense(slope.dtype)
        return slope @ weight if low is None else (low @ down).addmm_(slope, weight)


class FourBits(Plain):
    """A weight of bitsandbytes, with its state."""

    def __init__(self, packed: Any, state: Any) -> None:
        super().__init__(packed)
        self._state = state

    def dense(self, dtype: Any) -> Any:
        state = self._state
        scales = state.absmax
        if state.nested:
            inner = state.state2
            restore = torch.ops.bitsandbytes.dequantize_blockwise
            scales = restore(scales, inner.absmax, inner.code, inner.blocksize, torch.float32) + state.offset
        restore = torch.ops.bitsandbytes.dequantize_4bit
        return restore(self._weight, scales, state.blocksize, state.quant_type, tuple(state.shape), dtype)


class EightBits:
    """The weight of a `Float8Linear`."""

    def __init__(self, layer: Float8Linear) -> None:
        self._layer = layer

    def forward(self, rows: Any, low: Any, up: Any) -> Any:
        return self._layer.times(rows).addmm_(low, up.t())

    def backward(self, slope: Any, low: Any, down: Any) -> Any:
        found = self._layer.back(slope)
        return found if low is None else found.addmm_(low, down)


def frozen(layer: Any) -> Frozen | None:
    """The weight of a linear layer; None: it is of a kind that is not known here."""
    if isinstance(layer, Float8Linear):
        return EightBits(layer)
    if type(layer) is torch.nn.Linear:
        return Plain(layer.weight)
    state = getattr(getattr(layer, "weight", None), "quant_state", None)
    if type(layer).__name__ != "Linear4bit" or state is None or layer.weight.shape[0] == 1:
        return None
    return FourBits(layer.weight.data, state)

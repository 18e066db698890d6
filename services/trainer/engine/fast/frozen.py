"""Products with the frozen weight of a linear layer, as it lies in memory: plain, in 4 bits (nf4) or in 8 (fp8).

A weight is (outputs, inputs). It is handed on as a kind, its constants and its tensors, because a compiler can follow
those through an autograd function, and an object it cannot.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from services.trainer.engine.fast import float8

PLAIN, NF4, FP8 = "plain", "nf4", "fp8"


class Frozen(NamedTuple):
    """`constants` and `tensors` are what `dense`, or the functions of `float8`, take."""

    kind: str
    constants: tuple[Any, ...]
    tensors: tuple[Any, ...]


def frozen(layer: Any) -> Frozen | None:
    """The weight of a linear layer; None: it is of a kind that is not known here."""
    if isinstance(layer, float8.Float8Linear):
        return Frozen(FP8, (), (layer.rows, layer.row_scales, layer.columns, layer.column_scales))
    if type(layer) is torch.nn.Linear:
        return Frozen(PLAIN, (), (layer.weight,))
    state = getattr(getattr(layer, "weight", None), "quant_state", None)
    if type(layer).__name__ != "Linear4bit" or state is None or layer.weight.shape[0] == 1:
        return None
    form = (state.quant_type, state.blocksize, tuple(state.shape))
    if not state.nested:
        return Frozen(NF4, form, (layer.weight.data, state.absmax))
    inner = state.state2
    return Frozen(
        NF4, (*form, inner.blocksize), (layer.weight.data, state.absmax, inner.absmax, inner.code, state.offset)
    )


def dense(kind: str, constants: tuple[Any, ...], tensors: tuple[Any, ...], dtype: Any) -> Any:
    """The weight itself, (outputs, inputs), for the time of one product."""
    if kind == PLAIN:
        return tensors[0].to(dtype)
    quant_type, blocksize, shape = constants[:3]
    absmax = tensors[1]
    if len(tensors) > 2:  # the scales are quantized, too
        _, _, inner, code, offset = tensors
        absmax = torch.ops.bitsandbytes.dequantize_blockwise(absmax, inner, code, constants[3], torch.float32) + offset
    return torch.ops.bitsandbytes.dequantize_4bit(tensors[0], absmax, blocksize, quant_type, shape, dtype)

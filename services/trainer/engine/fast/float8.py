"""Frozen weights in 8 bits (e4m3), with a scale for each row of what is multiplied: products at twice the speed of
bfloat16 on GPUs that have them (compute capability 8.9 and newer).

The backward pass multiplies by the other side of the weight, so a second copy is kept that is scaled along that side.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from services.trainer.engine.fast import kernels

KIND = torch.float8_e4m3fn
LARGEST = 448.0
"""The largest number of e4m3."""
MULTIPLE = 16
"""The products need both sides of a weight to be multiples of this."""


def quantize_rows(values: Any) -> tuple[Any, Any]:
    """`values`, (rows, width), in 8 bits, and what each row was divided by: (rows, 1) float32."""
    wide = values.float()
    scales = wide.abs().amax(-1, keepdim=True).clamp(min=1e-12) / LARGEST
    return (wide / scales).clamp(-LARGEST, LARGEST).to(KIND), scales


class Quantized(NamedTuple):
    """Values in 8 bits, (rows, width), what each row was divided by, (rows, 1) float32, and the type they had."""

    small: Any
    divided: Any
    dtype: Any


def quantized(values: Any) -> Quantized:
    """`values`, (rows, width), for a product."""
    if kernels.available(values):
        return Quantized(*kernels.quantize_rows(values, KIND, LARGEST), values.dtype)
    return Quantized(*quantize_rows(values), values.dtype)


def product(values: Any, weight: Any, scales: Any) -> Any:
    """`values`, (rows, width) or these `quantized`, times the transpose of a quantized `weight`, (others, width), whose
    rows were divided by `scales`, (others, 1)."""
    small, divided, dtype = values if isinstance(values, Quantized) else quantized(values)
    if small.device.type == "cuda" and dtype == torch.bfloat16:
        return torch._scaled_mm(
            small, weight.t(), scale_a=divided, scale_b=scales.t(), out_dtype=torch.bfloat16, use_fast_accum=True
        )
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return ((small.to(wide) * divided) @ (weight.to(wide) * scales).t()).to(dtype)


class Float8Linear(torch.nn.Module):  # type: ignore[misc]
    """A linear layer whose weight is frozen in 8 bits.

    `rows`: (outputs, inputs) with `row_scales` (outputs, 1), for the product forward; `columns`: (inputs, outputs) with
    `column_scales` (inputs, 1), for the one backward.
    """

    def __init__(self, layer: Any, weight: Any = None) -> None:
        """`weight`: that of `layer`, where it is not in there."""
        super().__init__()
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias
        weight = (layer.weight if weight is None else weight).detach()
        for name, side in (("row", weight), ("column", weight.t())):
            small, scales = quantize_rows(side.contiguous())
            self.register_buffer(f"{name}s", small, persistent=False)
            self.register_buffer(f"{name}_scales", scales, persistent=False)

    @staticmethod
    def fits(layer: Any) -> bool:
        """Whether a layer can become one of these."""
        return type(layer) is torch.nn.Linear and Float8Linear.takes(layer)

    @staticmethod
    def takes(layer: Any) -> bool:
        """Whether a linear layer has sides that suit the products."""
        return not (layer.in_features % MULTIPLE or layer.out_features % MULTIPLE)

    def times(self, values: Any) -> Any:
        """`values`, (rows, inputs), times the transpose of the weight."""
        return product(values, self.rows, self.row_scales)

    def back(self, slope: Any) -> Any:
        """`slope`, (rows, outputs), times the weight."""
        return product(slope, self.columns, self.column_scales)

    def forward(self, values: Any) -> Any:
        found = _Product.apply(values, self)
        return found if self.bias is None else found + self.bias


class _Product(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, values: Any, layer: Float8Linear) -> Any:
        ctx.layer = layer
        return layer.times(values.reshape(-1, values.shape[-1])).view(*values.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        slope = gradients[0]
        return ctx.layer.back(slope.reshape(-1, slope.shape[-1])).view(*slope.shape[:-1], -1), None

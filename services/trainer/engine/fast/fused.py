"""LoRA's linear layers as one operation: x Wᵀ + scale (x Aᵀ) Bᵀ, with a backward pass of its own.

PEFT computes the same of five operations, keeps what each of them needs, and casts the input of each layer to the
adapter's float32 and back. Here the input and x Aᵀ are kept, and all products are in the type of the input. Names and
parameters stay PEFT's, and so do the files of the adapter.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer

from services.trainer.engine.fast.frozen import Frozen, frozen

ADAPTER = "default"


def fuse(model: Any) -> list[str]:
    """Let the LoRA layers of `model` compute as one operation. Returns the names of those that stay PEFT's: a kind of
    weight or of LoRA that is not known here."""
    left = []
    for name, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        weight = frozen(layer.get_base_layer()) if _is_plain(layer) else None
        if weight is None:
            left.append(name)
            continue
        layer.frozen_weight = weight
        layer.__class__ = _fused(type(layer))  # type: ignore[arg-type]
    return left


def _is_plain(layer: Any) -> bool:
    variants = getattr(layer, "lora_variant", {})
    return (
        list(layer.lora_A) == [ADAPTER]
        and isinstance(layer.lora_A[ADAPTER], torch.nn.Linear)
        and not variants.get(ADAPTER)
        and not layer.lora_bias.get(ADAPTER)
        and not getattr(layer, "fan_in_fan_out", False)
    )


@cache
def _fused(kind: Any) -> Any:
    """PEFT's class of a layer with our way of computing."""
    return type(f"Fused{kind.__name__}", (_Computes, kind), {})


class _Computes:
    """What a layer computes, put before PEFT's class of it."""

    def forward(self: Any, values: Any, *arguments: Any, **options: Any) -> Any:
        if self.disable_adapters or self.merged or arguments or options:
            return super().forward(values, *arguments, **options)  # type: ignore[misc]
        a, b = self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight
        drop = self.lora_dropout[ADAPTER]
        dropped = drop(values) if self.training and not isinstance(drop, torch.nn.Identity) else None
        bias = self.get_base_layer().bias
        return lora_linear(values, a, b, self.scaling[ADAPTER], self.frozen_weight, bias, dropped)


def lora_linear(
    values: Any, a: Any, b: Any, scale: float, weight: Frozen, bias: Any = None, dropped: Any = None
) -> Any:
    """The output of a linear layer with an adapter: `values`, (..., inputs), to (..., outputs). `a`: (rank, inputs),
    `b`: (outputs, rank). `dropped`: `values` after dropout, which the adapter reads instead. Computed in autocast's
    type if that is on, else in the type of `values`."""
    if torch.is_autocast_enabled(values.device.type):
        wanted = torch.get_autocast_dtype(values.device.type)
        values, dropped = values.to(wanted), None if dropped is None else dropped.to(wanted)
    return _LoraLinear.apply(values, dropped, a, b, bias, scale, weight)


def lora_linear_plain(
    values: Any, a: Any, b: Any, scale: float, weight: Any, bias: Any = None, dropped: Any = None
) -> Any:
    """What `lora_linear` computes, of a dense `weight`, (outputs, inputs), written plainly, for tests."""
    low = torch.nn.functional.linear(values if dropped is None else dropped, a)
    return torch.nn.functional.linear(values, weight, bias) + scale * torch.nn.functional.linear(low, b)


class _LoraLinear(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, values: Any, dropped: Any, a: Any, b: Any, bias: Any, scale: float, weight: Frozen) -> Any:
        dtype = values.dtype
        rows = values.reshape(-1, values.shape[-1])
        read = rows if dropped is None else dropped.reshape(-1, values.shape[-1])
        low = read @ a.to(dtype).t()
        found = weight.forward(rows, low, (b * scale).to(dtype))
        if bias is not None:
            found += bias
        ctx.save_for_backward(read, low, a, b)
        ctx.scale, ctx.weight, ctx.shape, ctx.dropped = scale, weight, values.shape, dropped is not None
        return found.view(*values.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        read, low, a, b = ctx.saved_tensors
        slope = gradients[0].reshape(-1, gradients[0].shape[-1])
        back, down = slope @ (b * ctx.scale).to(slope.dtype), a.to(slope.dtype)
        of_values = of_dropped = of_a = of_b = None
        if ctx.needs_input_grad[2]:
            of_a = (back.t() @ read).to(a.dtype)
        if ctx.needs_input_grad[3]:
            of_b = (slope.t() @ low).to(b.dtype) * ctx.scale
        if ctx.dropped and ctx.needs_input_grad[1]:
            of_dropped = (back @ down).view(ctx.shape)
        if ctx.needs_input_grad[0]:
            of_values = ctx.weight.backward(slope, None if ctx.dropped else back, down).view(ctx.shape)
        return of_values, of_dropped, of_a, of_b, None, None, None

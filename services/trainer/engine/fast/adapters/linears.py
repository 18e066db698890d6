"""LoRA's linear layers as one operation: x Wᵀ + scale (x Aᵀ) Bᵀ, with a backward pass of its own; of one layer, or of
several that read the same x.

PEFT computes the same of five operations, keeps what each of them needs, and casts the input of each layer to the
adapter's float32 and back. Here the input and x Aᵀ are kept, and all products are in the type of the input. Layers that
read the same input read it once for all their adapters, and the gradients by it are added while they are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from services.trainer.engine.fast.adapters.small import Small
from services.trainer.engine.fast.frozen import Frozen, back_through


class Adapted(NamedTuple):
    """A linear layer with an adapter. `a`: (rank, inputs), `b`: (outputs, rank), `bias`: (outputs,) or None."""

    weight: Frozen
    a: Any
    b: Any
    scale: float
    bias: Any = None


def lora_linears(values: Any, layers: Sequence[Adapted], dropped: Any = None) -> tuple[Any, ...]:
    """The outputs of `layers`: `values`, (..., inputs), to (..., outputs) of each. `dropped`: `values` after dropout,
    which the adapter of the only layer reads instead. Computed in autocast's type if that is on, else in the type of
    `values`."""
    values, dropped = computed_in(values), None if dropped is None else computed_in(dropped)
    adapters = [part for layer in layers for part in (layer.a, layer.b)]
    found: tuple[Any, ...] = _LoraLinears.apply(values, dropped, tuple(layers), *adapters)
    return found


def computed_in(values: Any) -> Any:
    """`values` in autocast's type, if that is on."""
    kind = values.device.type
    return values.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else values


def lora_linear_plain(
    values: Any, a: Any, b: Any, scale: float, weight: Any, bias: Any = None, dropped: Any = None
) -> Any:
    """What `lora_linears` computes for one layer of a dense `weight`, (outputs, inputs), written plainly, for tests."""
    low = torch.nn.functional.linear(values if dropped is None else dropped, a)
    return torch.nn.functional.linear(values, weight, bias) + scale * torch.nn.functional.linear(low, b)


def of_a(layers: Sequence[Adapted], back: Any, read: Any) -> list[Any]:
    """The gradients by `a` of each layer, in the adapter's own type. `read`: (tokens, inputs), what the adapters read;
    `back`: (tokens, sum of ranks), the gradient by what they made of it."""
    parts = (back.t() @ read).split([layer.a.shape[0] for layer in layers])
    return [part.to(layer.a.dtype) for layer, part in zip(layers, parts, strict=True)]


def of_b(layers: Sequence[Adapted], slopes: Sequence[Any], low: Any) -> list[Any]:
    """The gradients by `b` of each layer, in the adapter's own type. `slopes`: (tokens, outputs), those by the outputs;
    `low`: (tokens, sum of ranks), what the adapters made of the input."""
    found = []
    lows = low.split([layer.a.shape[0] for layer in layers], 1)
    for layer, slope, each in zip(layers, slopes, lows, strict=True):
        nothing = slope.new_empty(layer.b.shape)  # is not read; so the product is scaled while it is written
        product = torch.addmm(nothing, slope.t(), each, beta=0, alpha=layer.scale)
        found.append(product.to(layer.b.dtype))
    return found


def in_turn(of_a: Sequence[Any], of_b: Sequence[Any]) -> list[Any]:
    """What belongs to `a` and to `b` of each layer, layer by layer."""
    return [part for pair in zip(of_a, of_b, strict=True) for part in pair]


def shared_reading(layers: Sequence[Adapted], rows: Any) -> Any:
    """`rows` as the weights of all `layers` multiply them, if these are of one kind."""
    kinds = {type(layer.weight.here()) for layer in layers}
    return layers[0].weight.read(rows) if len(layers) > 1 and len(kinds) == 1 else rows


class _LoraLinears(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, values: Any, dropped: Any, layers: tuple[Adapted, ...], *_adapters: Any) -> tuple[Any, ...]:
        rows = values.reshape(-1, values.shape[-1])
        read = rows if dropped is None else dropped.reshape(-1, values.shape[-1])
        small = Small.of(layers, values.dtype)
        low = read @ small.down.t()
        lows = low.split([layer.a.shape[0] for layer in layers], 1)
        reading = shared_reading(layers, rows)
        found = []
        for layer, each, up in zip(layers, lows, small.ups, strict=True):
            output = layer.weight.forward(reading, each, up)
            if layer.bias is not None:
                output += layer.bias
            found.append(output.view(*values.shape[:-1], -1))
        ctx.save_for_backward(read, low, small.down, *small.ups)
        ctx.layers, ctx.shape, ctx.dropped = layers, values.shape, dropped is not None
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        read, low, down, *ups = ctx.saved_tensors
        layers, small = ctx.layers, Small(down, tuple(ups))
        slopes = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
        back = small.back(slopes)
        of_values = of_dropped = None
        adapters: list[Any] = [None] * (2 * len(layers))
        if any(ctx.needs_input_grad[3:]):
            adapters = in_turn(of_a(layers, back, read), of_b(layers, slopes, low))
        if ctx.dropped and ctx.needs_input_grad[1]:
            of_dropped = (back @ down).view(ctx.shape)
        if ctx.needs_input_grad[0]:
            weights = [layer.weight for layer in layers]
            if ctx.dropped:
                of_values = weights[0].backward(slopes[0]).view(ctx.shape)
            else:
                of_values = back_through(weights, slopes, back, down).view(ctx.shape)
        return of_values, of_dropped, None, *adapters

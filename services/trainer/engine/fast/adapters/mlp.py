"""A gated MLP with adapters on its three linear layers, down(silu(gate(x)) * up(x)), as one operation.

Its backward pass computes silu(g) * u anew instead of keeping it, and puts gradients where g and u were, so it can be
run once. It reads and writes the wide matrices fewer times than the three layers by themselves.
"""

from __future__ import annotations

from typing import Any

import torch

from services.trainer.engine.fast import kernels
from services.trainer.engine.fast.adapters import gated
from services.trainer.engine.fast.adapters.fused import is_fused
from services.trainer.engine.fast.adapters.linears import (
    Adapted,
    Small,
    computed_in,
    lora_linears,
    of_adapters,
    shared_reading,
)
from services.trainer.engine.fast.frozen import back_through

LAYERS = ("gate_proj", "up_proj", "down_proj")
SILU = frozenset({"SiLU", "SiLUActivation"})
"""The classes of that function in torch and in transformers."""


class Mlps:
    """Those of a model that can be one operation; they can be taken apart again."""

    def __init__(self, model: Any) -> None:
        self.found = [module for module in model.modules() if _is_gated(module)]
        self._before: list[Any] = []

    def put_in(self) -> None:
        self._before = [vars(module).get("forward") for module in self.found]
        for module in self.found:
            module.forward = _Forward(module, module.forward)

    def take_out(self) -> None:
        for module, forward in zip(self.found, self._before, strict=True):
            del module.forward
            if forward is not None:
                module.forward = forward


def _is_gated(module: Any) -> bool:
    layers: list[Any] = [getattr(module, name, None) for name in LAYERS]
    return (
        all(map(is_fused, layers))
        and type(getattr(module, "act_fn", None)).__name__ in SILU
        and all(layer.adapted.bias is None and layer.adapted.a.shape[0] <= gated.HIGHEST_RANK for layer in layers)
    )


class _Forward:
    """The forward pass of a module, which is left to its own code where an adapter is switched off or drops inputs."""

    def __init__(self, module: Any, forward: Any) -> None:
        self._layers, self._forward = [getattr(module, name) for name in LAYERS], forward

    def __call__(self, values: Any, *arguments: Any, **options: Any) -> Any:
        if arguments or options or not all(layer.joins for layer in self._layers):
            return self._forward(values, *arguments, **options)
        return gated_mlp(values, *(layer.adapted for layer in self._layers))


def gated_mlp(values: Any, gate: Adapted, up: Adapted, down: Adapted) -> Any:
    """`values`, (..., inputs), to (..., outputs), in autocast's type if that is on."""
    adapters = [part for layer in (gate, up, down) for part in (layer.a, layer.b)]
    return _GatedMlp.apply(computed_in(values), (gate, up, down), *adapters)


def gated_mlp_plain(values: Any, gate: Adapted, up: Adapted, down: Adapted) -> Any:
    """The same of layers by themselves, for tests."""
    (one,), (other,) = lora_linears(values, [gate]), lora_linears(values, [up])
    return lora_linears(torch.nn.functional.silu(one) * other, [down])[0]


class _GatedMlp(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, values: Any, layers: tuple[Adapted, ...], *_adapters: Any) -> Any:
        gate, up, down = layers
        rows = values.reshape(-1, values.shape[-1])
        inner, outer = Small.of(layers[:2], values.dtype), Small.of(layers[2:], values.dtype)
        low = rows @ inner.down.t()
        reading = shared_reading(layers[:2], rows)
        gates, ups = gate.weight.forward(reading, None, None), up.weight.forward(reading, None, None)
        del reading
        product = gated.gated if kernels.available(gates) else gated.gated_plain
        hidden = product(gates, ups, _lows(layers, low), inner.ups)
        low_of_down = hidden @ outer.down.t()
        found = down.weight.forward(hidden, low_of_down, outer.ups[0])
        ctx.save_for_backward(rows, gates, ups, low, low_of_down, inner.down, *inner.ups, outer.down, *outer.ups)
        ctx.layers, ctx.shape = layers, values.shape
        return found.view(*values.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        rows, gates, ups, low, low_of_down, inner_down, up_of_gate, up_of_up, *outer = ctx.saved_tensors
        layers, (gate, up, down) = ctx.layers, ctx.layers
        inner, outer = Small(inner_down, (up_of_gate, up_of_up)), Small(outer[0], (outer[1],))
        slope = gradients[0].reshape(-1, gradients[0].shape[-1])
        back = outer.back([slope])
        hidden = down.weight.backward(slope)
        product = gated.gated_back_ if kernels.available(gates) else gated.gated_back_plain_
        product(hidden, gates, ups, _lows(layers, low), inner.ups, back, outer.down)
        adapters: list[Any] = [None] * 6
        if any(ctx.needs_input_grad[2:]):
            adapters[4:] = of_adapters([down], [slope], back, hidden, low_of_down)
        del hidden
        back = inner.back([gates, ups])
        if any(ctx.needs_input_grad[2:]):
            adapters[:4] = of_adapters([gate, up], [gates, ups], back, rows, low)
        of_values = None
        if ctx.needs_input_grad[0]:
            of_values = back_through([gate.weight, up.weight], [gates, ups], back, inner.down).view(ctx.shape)
        return of_values, None, *adapters


def _lows(layers: tuple[Adapted, ...], low: Any) -> tuple[Any, Any]:
    """The parts of `low`, (tokens, sum of ranks), of the first two layers."""
    first, second = low.split([layer.a.shape[0] for layer in layers[:2]], 1)
    return first, second

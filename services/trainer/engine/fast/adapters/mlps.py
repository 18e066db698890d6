"""The gated MLPs of a model, each as one operation with its adapters."""

from __future__ import annotations

from typing import Any

import torch

from services.trainer.engine.fast.adapters import gated, gated_mlp
from services.trainer.engine.fast.adapters.fused import is_fused
from services.trainer.engine.fast.adapters.gated_mlp import Keep

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


def keep_inputs(model: Any, keep: Keep | None) -> None:
    """Let the MLPs of `model` that are one operation keep nothing but their input, by `keep`, and compute some of the
    tokens at a time. None: they keep what makes them quick."""
    for module in model.modules():
        if isinstance(forward := vars(module).get("forward"), _Forward):
            forward.keep = keep


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
        self.keep: Keep | None = None

    def __call__(self, values: Any, *arguments: Any, **options: Any) -> Any:
        if arguments or options or not all(layer.joins for layer in self._layers):
            return self._forward(values, *arguments, **options)
        adapted = (layer.adapted for layer in self._layers)
        if self.keep is not None and torch.is_grad_enabled():
            return gated_mlp.in_pieces(values, *adapted, keep=self.keep)
        return gated_mlp.whole(values, *adapted)

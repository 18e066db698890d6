"""LoRA layers of PEFT that compute as one operation (`linears.py`), alone or together with those that read the same
input. Names and parameters stay PEFT's, and so do the files of the adapter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer

from services.trainer.engine.fast.adapters.linears import Adapted, lora_linears
from services.trainer.engine.fast.frozen import frozen

ADAPTER = "default"
SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers of one module that transformers' models call one after the other, with the same input."""


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
    for module in model.modules():
        for names in SIBLINGS:
            layers: list[Any] = [getattr(module, name) for name in names if is_fused(getattr(module, name, None))]
            if len(layers) > 1:
                siblings = Siblings(layers)
                for layer in layers:
                    layer.siblings = siblings
    return left


def is_fused(layer: Any) -> bool:
    return isinstance(layer, Fused)


def groups_of(model: Any) -> list[list[Adapted]]:
    """The layers of `model` that compute as one operation, each with those that it computes together with."""
    found: dict[int, list[Adapted]] = {}
    for layer in model.modules():
        if is_fused(layer):
            together = (layer,) if layer.siblings is None else layer.siblings.layers
            found[id(together[0])] = [each.adapted for each in together]
    return list(found.values())


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
    return type(f"Fused{kind.__name__}", (Fused, kind), {})


class Fused:
    """What a layer computes, put before PEFT's class of it."""

    siblings: Siblings | None = None

    def forward(self: Any, values: Any, *arguments: Any, **options: Any) -> Any:
        if self.disable_adapters or self.merged or arguments or options:
            return super().forward(values, *arguments, **options)  # type: ignore[misc]
        if self.drops:
            return lora_linears(values, [self.adapted], self.lora_dropout[ADAPTER](values))[0]
        return lora_linears(values, [self.adapted])[0] if self.siblings is None else self.siblings(self, values)

    @property
    def adapted(self: Any) -> Adapted:
        """The layer as it is at the moment."""
        a, b = self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight
        return Adapted(self.frozen_weight, a, b, self.scaling[ADAPTER], self.get_base_layer().bias)

    @property
    def drops(self: Any) -> bool:
        """Whether its adapter reads other numbers than its base."""
        return self.training and not isinstance(self.lora_dropout[ADAPTER], torch.nn.Identity)

    @property
    def joins(self: Any) -> bool:
        """Whether it may compute together with other layers."""
        return not (self.disable_adapters or self.merged or self.drops)


class Siblings:
    """Layers that are called with the same input: the first computes for all, and the others find their outputs."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self.layers = tuple(layers)
        self._values: Any = None
        self._found: dict[int, Any] = {}

    def __call__(self, layer: Any, values: Any) -> Any:
        """The output of one of the layers."""
        if self._values is values and id(layer) in self._found:
            output = self._found.pop(id(layer))
            if not self._found:
                self._values = None
            return output
        if layer is not self.layers[0] or not all(each.joins for each in self.layers):
            return lora_linears(values, [layer.adapted])[0]
        # What others have not asked for, after an error in between, is forgotten here.
        first, *others = lora_linears(values, [each.adapted for each in self.layers])
        self._values = values
        self._found = {id(each): output for each, output in zip(self.layers[1:], others, strict=True)}
        return first

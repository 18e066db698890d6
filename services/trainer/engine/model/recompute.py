"""Gradient checkpointing: activations are computed again in the backward pass instead of kept. Of all layers, of every
second one, or of the attention in each: less memory for more time, in this order reversed."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from services.trainer.engine.fast.adapters.mlps import keep_inputs
from services.trainer.engine.model.offload import Offload


def recompute_activations(model: Any, what: str, offload: Offload | None = None) -> None:
    """`what`: `none`, `attention`, `half` or `all`. A layer that does not call its attention `…Attention`, as recurrent
    ones do, keeps it. `offload`: with `all`, what keeps the inputs of the layers in the memory of the host; None: they
    stay on the GPU. MLPs that are one operation then go backward by themselves, from inputs that wait there, too."""
    for module in model.modules():
        if isinstance(vars(module).get("forward"), _Again):
            del module.forward
    keep_inputs(model, offload.keep if offload is not None and what == "all" else None)
    if what == "none":
        model.gradient_checkpointing_disable()
        return
    if what == "attention":
        model.gradient_checkpointing_disable()
        within = "\0"
        for name, module in model.named_modules():
            if type(module).__name__.endswith("Attention") and not name.startswith(within):
                module.forward, within = _Again(module), f"{name}."
        return
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if what == "half":
        layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
        for layer in layers[1::2]:
            layer.gradient_checkpointing = False
    elif offload is not None:
        for module in model.modules():
            if "_gradient_checkpointing_func" in vars(module):
                module._gradient_checkpointing_func = offload.checkpoint


class _Again:
    """The forward pass of a module, which is done again before the backward one."""

    def __init__(self, module: Any) -> None:
        self._module, self._forward = module, module.forward

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if not self._module.training or not torch.is_grad_enabled():
            return self._forward(*arguments, **options)
        return checkpoint(self._forward, *arguments, use_reentrant=False, **options)

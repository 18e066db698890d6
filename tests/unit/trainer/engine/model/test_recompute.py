"""What is computed again in the backward pass, and that nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from services.trainer.engine.fast.adapters.fused import fuse
from services.trainer.engine.model.recompute import recompute_activations
from tests.unit.trainer.engine.fast.models import gradients_of, small_model

pytestmark = pytest.mark.torch

TOKENS = 48


def kept_and_found(what: str, dropout: float) -> tuple[int, int, dict[str, Any]]:
    """Bytes that the forward pass keeps, how often attention ran, and the gradients."""
    model = small_model().train()
    fuse(model)
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleDict) and "default" in module and dropout:
            module["default"] = (
                torch.nn.Dropout(dropout) if isinstance(module["default"], torch.nn.Identity) else (module["default"])
            )
    recompute_activations(model, "attention")
    recompute_activations(model, what)  # in place of what was before
    ran: list[int] = []
    for layer in model.get_base_model().model.layers:
        layer.self_attn.k_proj.register_forward_hook(lambda *_: ran.append(1))
    kept: dict[int, int] = {}

    def keep(tensor: Any) -> Any:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        tokens = torch.randint(0, 64, (2, 24), generator=torch.Generator().manual_seed(2))
        model(input_ids=tokens, labels=tokens)
    ran.clear()
    torch.manual_seed(7)
    found = gradients_of(model)
    return sum(size for storage, size in kept.items() if storage not in parameters), len(ran), found


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_gradients_are_the_same_and_less_is_kept(dropout: float):
    reference = kept_and_found("none", dropout)
    assert reference[1] == 2  # two layers, once
    sizes = [reference[0]]
    for what, times in (("attention", 4), ("half", 3), ("all", 4)):
        kept, ran, found = kept_and_found(what, dropout)
        assert ran == times, what
        sizes.append(kept)
        for name, gradient in reference[2].items():
            assert torch.allclose(found[name], gradient, rtol=1e-10, atol=1e-12), (what, name)
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 4

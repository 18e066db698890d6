"""What a model gets, and what it is told where it does not get it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from services.trainer.engine.fast import dress, liger
from tests.unit.trainer.engine.fast.models import small_model

pytestmark = pytest.mark.torch


def hidden_of(model: Any) -> Any:
    tokens = torch.arange(24)[None] % 64
    with torch.no_grad():
        return model(input_ids=tokens, output_hidden_states=True).hidden_states[-1]


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as the choice goes; nothing is computed there."""
    monkeypatch.setattr(dress, "is_gpu", lambda _model: True)


def replacing(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Liger's kernels stand for this function on each norm; on a CPU its own do not run."""

    def apply(base: Any, **_: Any) -> None:
        for layer in base.model.layers:
            layer.input_layernorm.forward = change(layer.input_layernorm.forward)

    monkeypatch.setattr(liger, "MODEL_TYPE_TO_APPLY_LIGER_FN", {"llama": apply})
    monkeypatch.setattr(liger, "_apply_liger_kernel_to_instance", apply, raising=False)


@pytest.mark.usefixtures("on_gpu")
def test_kernels_that_compute_the_same_are_kept(monkeypatch: pytest.MonkeyPatch):
    used: list[int] = []
    replacing(monkeypatch, lambda norm: lambda values: used.append(1) or norm(values) * 1.001)
    model = small_model()
    dressed = dress.dress(model, dress.Pieces(), lambda: hidden_of(model))
    assert dressed.liger[0], dressed.liger
    used.clear()
    hidden_of(model)
    assert len(used) == 2


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("wrong", ["another result", "no number", "an error"])
def test_kernels_that_do_not_suit_the_base_are_taken_out_again(monkeypatch: pytest.MonkeyPatch, wrong: str):
    def change(norm: Any) -> Any:
        def forward(values: Any) -> Any:
            if wrong == "an error":
                raise RuntimeError("no kernel for this")
            return norm(values) * (float("nan") if wrong == "no number" else -1.0)

        return forward

    replacing(monkeypatch, change)
    model = small_model()
    expected = hidden_of(model)
    dressed = dress.dress(model, dress.Pieces(), lambda: hidden_of(model))
    assert not dressed.liger[0]
    assert torch.allclose(hidden_of(model), expected)


@pytest.mark.usefixtures("on_gpu")
def test_ligers_own_pieces_can_be_taken_out():
    model = small_model()
    expected = hidden_of(model)
    layers = liger.Layers(model.get_base_model())
    layers.put_in()
    assert "forward" in vars(model.get_base_model().model.norm)
    layers.take_out()
    assert torch.equal(hidden_of(model), expected)


def test_a_family_without_kernels_is_named(monkeypatch: pytest.MonkeyPatch, on_gpu: None):
    monkeypatch.setattr(liger, "MODEL_TYPE_TO_APPLY_LIGER_FN", {})
    model = small_model()
    dressed = dress.dress(model, dress.Pieces(), lambda: hidden_of(model))
    assert dressed.liger == (False, "it has no kernels for bases of the type llama")


def test_what_is_switched_off_is_not_there():
    model = small_model()
    dressed = dress.dress(model, dress.Pieces(fused_lora=False, liger=False), lambda: hidden_of(model))
    assert dressed.fused_lora == dressed.liger == (False, "switched off")
    assert not any(type(layer).__name__.startswith("Fused") for layer in model.modules())


def test_on_a_cpu_layers_are_fused_and_the_reason_is_told_for_the_rest():
    model = small_model()
    expected = hidden_of(model)
    dressed = dress.dress(model, dress.Pieces(), lambda: hidden_of(model))
    assert dressed.fused_lora[0]
    assert dressed.liger == (False, "its kernels are for GPUs")
    assert dressed.kernels == (False, "they are for GPUs")
    assert torch.allclose(hidden_of(model), expected)

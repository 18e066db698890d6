"""Frozen weights in 8 bits: near the plain product, forward and backward; head and adapter stay as they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from services.trainer.engine.fast import dress, float8
from services.trainer.engine.fast.adapters import fused
from tests.unit.trainer.engine.fast.models import gradients_of, small_model

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_a_row_is_rounded_by_at_most_a_sixteenth(scale: float):
    values = torch.randn(6, 256, generator=torch.Generator().manual_seed(0)) * scale
    values[2] = 0
    small, scales = float8.quantize_rows(values)
    assert small.dtype == torch.float8_e4m3fn
    large = values.abs() > values.abs().amax(-1, keepdim=True) / 100
    error = (small.float() * scales - values).abs()
    assert bool((error[large] <= values.abs()[large] / 16 * 1.001).all())
    assert not (small.float() * scales)[2].any()


@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_computes_the_product_of_its_rounded_weight(bias: bool):
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 32, bias=bias).double().requires_grad_(requires_grad=False)
    small = float8.Float8Linear(layer)
    values = torch.randn(2, 5, 64, dtype=torch.float64, requires_grad=True)
    slope = torch.randn(2, 5, 32, dtype=torch.float64)
    results = []
    for each in (layer, small):
        found = each(values)
        results.append((found, *torch.autograd.grad((found * slope).sum(), values)))
    for plain, rounded in zip(*results, strict=True):
        assert 0 < float((rounded - plain).norm() / plain.norm()) < 0.06


def test_the_frozen_layers_of_a_model_have_8_bits_and_nothing_else():
    model = small_model("Llama")
    expected = gradients_of(model)
    dress.in_8_bits(model)
    assert fused.fuse(model) == []
    layers = [name for name, layer in model.named_modules() if isinstance(layer, float8.Float8Linear)]
    assert len(layers) == 2 * 7
    assert not any("lora" in name or "head" in name for name in layers)
    found = gradients_of(model)
    assert found.keys() == expected.keys()
    assert float((found["loss"] - expected["loss"]).abs() / expected["loss"]) < 0.02
    for name, value in expected.items():
        assert float((found[name] - value).norm() / value.norm()) < 0.25, name


def test_layers_of_other_sizes_stay_as_they_are():
    assert not float8.Float8Linear.fits(torch.nn.Linear(24, 32))
    assert not float8.Float8Linear.fits(torch.nn.Embedding(32, 32))


def test_a_layer_without_an_adapter_has_the_gradient_of_its_input(monkeypatch: pytest.MonkeyPatch):
    """A model in which only some layers are tuned."""
    calls: list[Any] = []
    product = float8.product
    monkeypatch.setattr(float8, "product", lambda *given: calls.append(given[0].shape) or product(*given))
    layer = float8.Float8Linear(torch.nn.Linear(32, 16).requires_grad_(requires_grad=False))
    values = torch.randn(4, 32, requires_grad=True)
    layer(values).sum().backward()
    assert values.grad is not None
    assert calls == [(4, 32), (4, 16)]

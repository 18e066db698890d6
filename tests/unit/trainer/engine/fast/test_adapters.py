"""Layers that read the same input, and whole gated MLPs, as one operation: what the layers by themselves compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft.tuners.lora.layer import LoraLayer
from torch.utils._python_dispatch import TorchDispatchMode

from services.trainer.engine.fast import dress, frozen
from services.trainer.engine.fast.adapters import fused, gated_mlp, linears, mlps
from services.trainer.engine.fast.adapters.small import Smalls
from services.trainer.engine.fast.float8 import Float8Linear
from services.trainer.engine.fast.frozen import EightBits, Frozen, Plain
from tests.unit.trainer.engine.fast.models import gradients_of, small_model

pytestmark = pytest.mark.torch

INPUTS, INNER = 48, 80
RANK = 8
"""That of the adapters of `small_model`."""


def adapted(inputs: int, outputs: int, rank: int, kind: str, bias: bool = False) -> linears.Adapted:
    draw = {"dtype": torch.float64}
    layer = torch.nn.Linear(inputs, outputs, bias=False, **draw)
    weight: Frozen = EightBits.of(Float8Linear(layer)) if kind == "fp8" else Plain(layer.weight.detach())
    a, b = torch.randn(rank, inputs, **draw), torch.randn(outputs, rank, **draw)
    offset = torch.randn(outputs, **draw) if bias else None
    return linears.Adapted(weight, a.requires_grad_(), b.requires_grad_(), 0.5, offset)


def results(outputs: Any, values: Any, layers: list[linears.Adapted]) -> list[Any]:
    """The outputs, and the gradients by the input and by each adapter."""
    torch.manual_seed(1)
    loss = sum((each * torch.randn_like(each)).sum() for each in outputs)
    adapters = [part for layer in layers for part in (layer.a, layer.b)]
    return [*outputs, *torch.autograd.grad(loss, [values, *adapters])]


def assert_near(found: list[Any], expected: list[Any], error: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).norm() / other.norm()) < error


@pytest.mark.parametrize("kind", ["plain", "fp8"])
def test_layers_with_the_same_input_compute_what_each_does_alone(kind: str):
    torch.manual_seed(0)
    values = torch.randn(3, 5, INPUTS, dtype=torch.float64, requires_grad=True)
    layers = [adapted(INPUTS, outputs, rank, kind, bias) for outputs, rank, bias in
              ((64, 8, False), (16, 4, True), (16, 8, False))]  # fmt: skip
    alone = [linears.lora_linears(values, [layer])[0] for layer in layers]
    together = linears.lora_linears(values, layers)
    assert_near(results(together, values, layers), results(alone, values, layers), 1e-12)


class Elsewhere:
    """A weight that is put together where it is multiplied, as those of a divided base are."""

    def __init__(self, weight: Frozen) -> None:
        self._weight = weight

    def here(self) -> Frozen:
        return self._weight

    def __getattr__(self, name: str) -> Any:
        return getattr(self._weight, name)


def test_layers_of_different_kinds_of_a_divided_base_compute_what_each_does_alone():
    torch.manual_seed(0)
    values = torch.randn(2, 3, INPUTS, dtype=torch.float64, requires_grad=True)
    layers = [adapted(INPUTS, 16, 8, kind) for kind in ("fp8", "plain")]
    layers = [layer._replace(weight=Elsewhere(layer.weight)) for layer in layers]
    alone = [linears.lora_linears(values, [layer])[0] for layer in layers]
    assert_near(results(linears.lora_linears(values, layers), values, layers), results(alone, values, layers), 1e-12)


@pytest.mark.parametrize(("kind", "error"), [("plain", 1e-12), ("fp8", 0.1)])
def test_a_gated_mlp_computes_what_its_layers_do(kind: str, error: float):
    torch.manual_seed(0)
    values = torch.randn(3, 5, INPUTS, dtype=torch.float64, requires_grad=True)
    layers = [adapted(*shape, kind) for shape in ((INPUTS, INNER, 8), (INPUTS, INNER, 4), (INNER, INPUTS, 8))]
    expected = results([gated_mlp.plain(values, *layers)], values, layers)
    assert_near(results([gated_mlp.whole(values, *layers)], values, layers), expected, error)


@pytest.mark.parametrize("size", [4, 7, 15])
@pytest.mark.parametrize(("kind", "error"), [("plain", 1e-12), ("fp8", 0.1)])
def test_a_gated_mlp_in_pieces_computes_what_its_layers_do(
    kind: str, error: float, size: int, monkeypatch: pytest.MonkeyPatch
):
    torch.manual_seed(0)
    values = torch.randn(3, 5, INPUTS, dtype=torch.float64, requires_grad=True)
    layers = [adapted(*shape, kind) for shape in ((INPUTS, INNER, 8), (INPUTS, INNER, 4), (INNER, INPUTS, 8))]
    expected = results([gated_mlp.plain(values, *layers)], values, layers)
    monkeypatch.setattr(gated_mlp, "PIECE", size)
    found = gated_mlp.in_pieces(values, *layers, keep=lambda rows: rows.clone)
    assert_near(results([found], values, layers), expected, error)


def test_weights_in_4_bits_that_stay_restored_are_restored_once(
    small_4_bit_model: Any, monkeypatch: pytest.MonkeyPatch
):
    model = small_4_bit_model
    fused.fuse(model)
    restored: list[int] = []
    restore = frozen.FourBits._dense
    monkeypatch.setattr(frozen.FourBits, "_dense", lambda self, dtype: restored.append(1) or restore(self, dtype))
    expected = gradients_of(model)
    each_time, weights = len(restored), 2 * 7
    assert each_time > weights  # forward and backward
    for stays, times in ((True, weights), (True, 0), (False, each_time)):
        restored.clear()
        frozen.stay_restored(model, stays)
        found = gradients_of(model)
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        assert len(restored) == times


def layers_of(model: Any) -> list[Any]:
    return list(model.get_base_model().model.layers)


@pytest.mark.parametrize("model_class", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_a_model_has_the_same_gradients_with_whole_mlps(model_class: str):
    model = small_model(model_class)
    before = gradients_of(model)
    assert fused.fuse(model) == []
    found = mlps.Mlps(model)
    assert len(found.found) == len(layers_of(model))
    found.put_in()
    ran: list[int] = []
    for layer in layers_of(model):
        layer.mlp.down_proj.register_forward_hook(lambda *_: ran.append(1))
    after = gradients_of(model)
    assert not ran  # the layer is not called by itself
    for name, value in before.items():
        assert torch.allclose(after[name], value, rtol=1e-7, atol=1e-12), name
    with model.disable_adapter():
        model(input_ids=torch.arange(8)[None])
    assert len(ran) == len(found.found)
    found.take_out()
    gradients_of(model)
    assert len(ran) == 2 * len(found.found)


@pytest.mark.parametrize("model_class", ["Llama", "Gemma"])
def test_adapters_that_were_cast_together_are_as_if_cast_where_they_are_needed(model_class: str):
    model = small_model(model_class)
    fused.fuse(model)
    mlps.Mlps(model).put_in()
    expected = gradients_of(model)
    adapters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    together = Smalls(fused.groups_of(model), torch.float64)
    casts = Casts()

    def found() -> dict[str, Any]:
        casts.count = 0
        with casts:
            return gradients_of(model)

    def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
        assert all(torch.equal(one[name], value) for name, value in other.items())

    assert_equal(found(), expected)
    assert casts.count == 0
    with torch.no_grad():
        for adapter in adapters:
            adapter.mul_(0.5)
    changed = found()  # nobody has cast them, so each layer does it
    assert casts.count
    assert not torch.equal(changed["loss"], expected["loss"])
    together.renew()
    assert_equal(found(), changed)
    assert casts.count == 0


class Casts(TorchDispatchMode):
    """Counts the copies of adapters."""

    count = 0

    def __torch_dispatch__(self, function: Any, _types: Any, arguments: Any = (), options: Any = None) -> Any:
        self.count += function is torch.ops.aten.copy_.default and arguments[1].shape[0] == RANK
        return function(*arguments, **(options or {}))


def test_mlps_with_another_function_between_are_left_alone():
    model = small_model("Gemma")
    fused.fuse(model)
    assert mlps.Mlps(model).found == []


def test_dropout_is_drawn_for_each_layer_by_itself():
    model = small_model().train()
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.lora_dropout["default"] = torch.nn.Dropout(0.5)
    torch.manual_seed(3)
    before = gradients_of(model)
    fused.fuse(model)
    mlps.Mlps(model).put_in()
    torch.manual_seed(3)
    after = gradients_of(model)
    for name, value in before.items():
        assert torch.allclose(after[name], value, rtol=1e-7, atol=1e-12), name


def test_an_output_that_nobody_asked_for_is_not_given_to_another_input():
    model = small_model()
    fused.fuse(model)
    attention = layers_of(model)[0].self_attn
    one, other = (torch.randn(1, 3, 64, dtype=torch.float64) for _ in range(2))
    expected = attention.k_proj(other)
    attention.q_proj(one)  # as if an error had come before the others
    assert torch.equal(attention.k_proj(other), expected)
    attention.q_proj(other)
    assert torch.equal(attention.k_proj(other), expected)
    assert torch.equal(attention.k_proj(one), attention.k_proj(one.clone()))


def test_mlps_that_compute_something_else_are_taken_out(monkeypatch: pytest.MonkeyPatch):
    model = small_model()

    def hidden() -> Any:
        with torch.no_grad():
            return model(input_ids=torch.arange(24)[None], output_hidden_states=True).hidden_states[-1]

    expected = hidden()
    monkeypatch.setattr(dress.kernels, "problem", lambda _device: None)
    monkeypatch.setattr(gated_mlp, "whole", lambda values, *_layers: values * 5.0)
    found = dress.dress(model, dress.Pieces(), hidden).fused_lora
    assert found[0] and "something else" in found[1]
    assert torch.allclose(hidden(), expected)

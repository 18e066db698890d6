"""The fused LoRA layer computes what PEFT's five operations do, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from services.trainer.engine.fast.adapters import fused, linears
from services.trainer.engine.fast.frozen import Plain
from tests.unit.trainer.engine.fast.models import gradients_of, small_model

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("dropout", [0.0, 0.5], ids=["no-dropout", "dropout"])
@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.float64, 1e-10), (torch.bfloat16, 1e-2)], ids=["float64", "bfloat16"]
)
def test_value_and_gradients_are_those_of_the_plain_products(dtype: Any, error: float, dropout: float, bias: bool):
    torch.manual_seed(0)
    draw = {"dtype": torch.float64, "requires_grad": True}
    values, a, b = torch.randn(3, 5, 48, **draw), torch.randn(8, 48, **draw), torch.randn(32, 8, **draw)
    weight, offset = torch.randn(32, 48, dtype=torch.float64), torch.randn(32, dtype=torch.float64) if bias else None
    mask = torch.nn.functional.dropout(torch.ones(3, 5, 48, dtype=torch.float64), dropout) if dropout else None
    slope = torch.randn(3, 5, 32, dtype=torch.float64)

    def results(compute: Any, inputs: tuple[Any, Any, Any], weight: Any, kind: Any) -> list[Any]:
        x, *adapter = inputs
        dropped = None if mask is None else x * mask.to(kind)
        found = compute(x, *adapter, 0.5, weight, None if offset is None else offset.to(kind), dropped)
        return [found, *torch.autograd.grad((found * slope.to(kind)).sum(), inputs)]

    expected = results(linears.lora_linear_plain, (values, a, b), weight, torch.float64)
    inputs = (values.detach().to(dtype).requires_grad_(), a, b)  # the adapter is wider than what it computes in

    def ours(x: Any, a: Any, b: Any, scale: float, weight: Any, bias: Any, dropped: Any) -> Any:
        return linears.lora_linears(x, [linears.Adapted(Plain(weight), a, b, scale, bias)], dropped)[0]

    found = results(ours, inputs, weight.to(dtype), dtype)
    for one, other in zip(found, expected, strict=True):
        assert float((one.double() - other).norm() / other.norm()) < error
    assert found[2].dtype == found[3].dtype == torch.float64


@pytest.mark.parametrize("model_class", ["Llama", "Qwen2", "Gemma", "Phi3"])
def test_a_model_has_the_same_loss_and_gradients_with_it(model_class: str):
    model = small_model(model_class)
    before = gradients_of(model)
    assert fused.fuse(model) == []
    after = gradients_of(model)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.allclose(after[name], value, rtol=1e-7, atol=1e-12), name


def test_the_4_bits_of_bitsandbytes_are_read_as_it_reads_them(small_4_bit_model: Any):
    before = gradients_of(small_4_bit_model)
    assert fused.fuse(small_4_bit_model) == []
    after = gradients_of(small_4_bit_model)
    for name, value in before.items():
        assert float((after[name] - value).norm()) <= 1e-5 * float(value.norm()), name


def test_names_and_parameters_stay_pefts():
    model = small_model("Llama")
    before = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    fused.fuse(model)
    assert {name: parameter.data_ptr() for name, parameter in model.named_parameters()} == before


def test_without_its_adapter_the_base_computes():
    model = small_model("Llama")
    tokens = torch.arange(12)[None]
    with model.disable_adapter():
        expected = model(input_ids=tokens).logits
        fused.fuse(model)
        assert torch.equal(model(input_ids=tokens).logits, expected)
    assert not torch.equal(model(input_ids=tokens).logits, expected)


def test_a_kind_of_adapter_that_is_not_known_stays_pefts():
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4, vocab_size=64
    )
    adapter = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], use_dora=True)
    model = get_peft_model(transformers.LlamaForCausalLM(config), adapter)
    left = fused.fuse(model)
    assert [name.rsplit(".", 1)[-1] for name in left] == ["q_proj", "v_proj"]

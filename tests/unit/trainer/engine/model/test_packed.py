"""Packed rows have the losses of documents by themselves, in every family; where they would not, a row has one."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from services.trainer.domain.packing import RowShape
from services.trainer.engine.data.batches import Packer
from services.trainer.engine.forward import Forward
from services.trainer.engine.loss import Supervised
from services.trainer.engine.model.adapter import set_training, trainable
from services.trainer.engine.model.attention import choose_attention
from services.trainer.engine.model.measured import measure
from tests.families.tiny import FAMILIES, make_folder
from tests.unit.trainer.engine.model.conftest import SIZES
from tests.unit.trainer.engine.test_training import a_sequence

pytestmark = pytest.mark.torch

ITEMS = [(a_sequence(length, length // 2, length),) for length in (33, 21, 8, 40, 13, 2)]
STATE: dict[str, Any] = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8}
LINEAR: dict[str, Any] = {"linear_num_key_heads": 2, "linear_num_value_heads": 2}
LINEAR |= {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
TARGETS = r".*\.(q_proj|v_proj|qkv_proj|o_proj|in_proj|in_proj_qkv|query_key_value|dense)"
SEE_EACH_OTHER: dict[str, dict[str, Any]] = {
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "falcon_h1": {**STATE, "mamba_d_ssm": 64},
    "qwen3_5_text": {**LINEAR, "layer_types": ["linear_attention", "full_attention"]},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "llama4_text": {"num_local_experts": 2, "intermediate_size_mlp": 32, "attention_chunk_size": 16},
    "opt": {"word_embed_proj_dim": 32, "ffn_dim": 32, "pad_token_id": 1, "dropout": 0.0},
    "bloom": {},
    "mamba": {},
}
"""Mixers with a memory, positions of their own, chunks, and a mask that does not ask for positions."""


def tuned(config: Any, dtype: Any = torch.float32) -> Any:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config).to(dtype).requires_grad_(False)
    base.set_attn_implementation(choose_attention(base).implementation)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=TARGETS, task_type="CAUSAL_LM"))
    for parameter in trainable(model).values():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model


def figures(forward: Forward, shape: RowShape, most_tokens: int) -> tuple[float, int, dict[str, Any]]:
    packer = Packer(ITEMS, 0, shape)
    set_training(forward.model, True)
    forward.model.zero_grad()
    loss, correct = 0.0, 0
    for micro in packer.plan(range(len(ITEMS)), most_tokens):
        sums = Supervised().sums(forward, packer.pack(micro))
        sums.loss.backward()
        loss, correct = loss + float(sums.loss.detach()), correct + int(sums.correct)
    named = trainable(forward.model).items()
    return loss, correct, {name: each.grad.clone() for name, each in named if each.grad is not None}


@pytest.mark.parametrize("name", FAMILIES)
def test_packed_is_unpacked(name: str, tmp_path: Path):
    model = tuned(AutoConfig.from_pretrained(make_folder(FAMILIES[name], tmp_path)))
    reading = measure(model, [item[0] for item in ITEMS], nullcontext)
    assert reading.packed
    plain = Forward(model, linear_head=False)  # the base's own head, one document at a time
    loss, correct, gradients = figures(plain, RowShape(packed=False), 0)
    for shape in (RowShape(at_least=48), RowShape(at_least=200, multiple=8)):
        got = figures(Forward(model, linear_head=reading.linear_head), shape, 200)
        assert got[0] == pytest.approx(loss, rel=1e-5)
        assert got[1] == correct
        for parameter, gradient in gradients.items():
            torch.testing.assert_close(got[2][parameter], gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", SEE_EACH_OTHER)
def test_where_documents_would_see_each_other_a_row_has_one(name: str):
    sizes = {**SIZES, "pad_token_id": None, "hidden_size": 64, "head_dim": 16}
    model = tuned(CONFIG_MAPPING[name](**{**sizes, **SEE_EACH_OTHER[name]}))
    reading = measure(model, [item[0] for item in ITEMS], nullcontext)
    assert not reading.packed
    assert reading.reason.startswith("one document a row: ")
    forward = Forward(model, linear_head=reading.linear_head)
    alone, beside = (figures(forward, RowShape(packed=False), most) for most in (0, 200))
    assert beside[0] == pytest.approx(alone[0], rel=1e-5)


def test_a_faint_trace_of_another_document_is_found_in_sixteen_bits():
    config = CONFIG_MAPPING["lfm2"](**{**SIZES, "pad_token_id": None}, layer_types=["conv", "full_attention"])
    reading = measure(tuned(config, torch.bfloat16), [item[0] for item in ITEMS], nullcontext)
    assert not reading.packed
    llama = tuned(CONFIG_MAPPING["llama"](**SIZES), torch.bfloat16)
    assert measure(llama, [item[0] for item in ITEMS], nullcontext).packed


@pytest.mark.parametrize(
    ("name", "config", "linear"),
    [
        ("llama", {}, True),
        ("gemma2", {}, False),
        ("granite", {"logits_scaling": 4.0}, False),
        ("cohere", {}, False),
    ],
)
def test_a_head_that_caps_or_scales_its_logits_is_not_taken_for_a_linear_layer(
    name: str, config: dict[str, Any], linear: bool
):
    model = tuned(CONFIG_MAPPING[name](**{**SIZES, **config}))
    assert measure(model, [ITEMS[0][0]], nullcontext).linear_head == linear

"""An adapter changes only layers of the text decoder that the server can change, under the names that the server
knows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from services.trainer.domain.plan import Plan
from services.trainer.engine.loop import Interrupted
from services.trainer.engine.model.adapter import trainable
from services.trainer.engine.model.base import inspect_base
from services.trainer.engine.model.targets import layers_of
from shared.errors import InputError
from tests.unit.trainer.engine.model.conftest import SIZES, MakeModel, multimodal
from tests.unit.trainer.engine.model.test_attention import loaded
from tests.unit.trainer.engine.test_training import losses, stop_after, train

pytestmark = pytest.mark.torch

MakePlan = Callable[..., Plan]
SHORT = {"n_epochs": 1, "batch_size": 10, "learning_rate": 0.01}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
LLAMA = ATTENTION | {"gate_proj", "up_proj", "down_proj"}
EYES = {
    "Gemma3ForConditionalGeneration": ("gemma3", LLAMA),
    "Qwen2_5_VLForConditionalGeneration": ("qwen2_5_vl", LLAMA),
    "Qwen3_5ForConditionalGeneration": (
        "qwen3_5",
        LLAMA | {"in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj"},
    ),
}


@pytest.fixture
def plan_for(make_plan: MakePlan, make_model: MakeModel) -> Callable[..., Plan]:
    def make(name: str, config: Any, **changes: Any) -> Plan:
        base = {"id": "micro", "location": str(make_model(name, config))}
        return make_plan(
            **{"base": base, "lora": {"quantization": "none", "r": 8}, "hyperparameters": SHORT, **changes}
        )

    return make


def changed(tensors: dict[str, Any]) -> set[str]:
    """The names of the layers that an adapter's tensors change, as PEFT writes them."""
    return {name.removeprefix("base_model.model.").split(".lora_")[0] for name in tensors}


def last(names: set[str]) -> set[str]:
    return {name.rsplit(".", 1)[-1] for name in names}


@pytest.mark.parametrize("name", EYES)
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_an_adapter_of_a_base_with_eyes_changes_its_text_decoder_alone(
    plan_for: Callable[..., Plan], tmp_path: Path, name: str, quantization: str
):
    family, expected = EYES[name]
    plan = plan_for(name, multimodal(family), lora={"quantization": quantization, "r": 8})
    result = train(plan, tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    names = changed(tensors)
    # the server's class of such a base maps `model.language_model.` to its own names, and would ignore `model.layers.`
    assert {layer.split(".layers.")[0] for layer in names} == {"model.language_model"}
    assert last(names) == expected
    assert all(float(tensor.abs().max()) > 0 for name, tensor in tensors.items() if "lora_B" in name)
    assert any("not part of the text decoder" in part for part in result.not_tuned)
    assert "not part of the text decoder" in (tmp_path / "out" / "adapter" / "README.md").read_text()
    assert len(losses(tmp_path / "out")) == result.steps


def test_a_named_layer_is_changed_in_the_text_decoder_alone(plan_for: Callable[..., Plan]):
    config = multimodal("gemma3")  # its vision tower has layers of this name
    plan = plan_for(
        "Gemma3ForConditionalGeneration", config, lora={"quantization": "none", "target_modules": ["q_proj"]}
    )
    names = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in trainable(loaded(plan))}
    assert names == {f"model.language_model.layers.{layer}.self_attn.q_proj" for layer in (0, 1)}


def test_a_tower_cannot_be_named(plan_for: Callable[..., Plan], tmp_path: Path):
    plan = plan_for("Gemma3ForConditionalGeneration", multimodal("gemma3"), lora={"target_modules": ["fc1"]})
    with pytest.raises(InputError, match="names fc1; the base model has these linear layers: down_proj, gate_proj"):
        train(plan, tmp_path / "out")


MIXTURES: dict[str, Callable[[], Any]] = {
    "MixtralForCausalLM": lambda: transformers.MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
    "PhimoeForCausalLM": lambda: transformers.PhimoeConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
    "Qwen3MoeForCausalLM": lambda: transformers.Qwen3MoeConfig(
        **SIZES, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
    ),
    "DeepseekV3ForCausalLM": lambda: transformers.DeepseekV3Config(
        **{**SIZES, "num_key_value_heads": 4},
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        moe_intermediate_size=16,
        first_k_dense_replace=1,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
    ),
    "Qwen2MoeForCausalLM": lambda: transformers.Qwen2MoeConfig(
        **SIZES, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=16
    ),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_routers_and_experts_are_left_alone_and_that_is_said(plan_for: Callable[..., Plan], tmp_path: Path, name: str):
    result = train(plan_for(name, MIXTURES[name]()), tmp_path / "out")
    names = changed(load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors"))
    assert names
    assert not last(names) & {"gate", "router", "shared_expert_gate"}
    assert not any(".experts." in layer for layer in names)
    reason = json.loads((tmp_path / "out" / "hyperparameters.json").read_text())["target_modules"]["reason"]
    assert "% of the base): experts are not built as linear layers" in reason
    assert any("experts" in part for part in result.not_tuned)


@pytest.mark.parametrize("name", ["Qwen3MoeForCausalLM", "Gemma3ForConditionalGeneration"])
def test_a_run_on_such_a_base_continues_and_starts_from_its_adapter(
    plan_for: Callable[..., Plan], tmp_path: Path, name: str
):
    config = MIXTURES[name]() if name in MIXTURES else multimodal("gemma3")
    plan = plan_for(name, config, hyperparameters={**SHORT, "n_epochs": 2})
    train(plan, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(plan, tmp_path / "first", stop=stop_after(3))
    resumed = plan.model_copy(update={"resume_from": str(tmp_path / "first" / "resume")})
    train(resumed, tmp_path / "second")
    assert losses(tmp_path / "second") == losses(tmp_path / "whole")
    started = plan.model_copy(update={"start_from": str(tmp_path / "whole" / "adapter")})
    train(started, tmp_path / "started")
    assert losses(tmp_path / "started")[0]["train_loss"] < losses(tmp_path / "whole")[0]["train_loss"]


def test_a_router_that_the_server_can_change_is_tuned_if_it_is_a_plain_layer(plan_for: Callable[..., Plan]):
    served = [*LLAMA, "shared_expert_gate", "router"]
    tuned = inspect_base(plan_for("Qwen2MoeForCausalLM", MIXTURES["Qwen2MoeForCausalLM"](), served_linears=served))
    assert "shared_expert_gate" in last(set(tuned.linears))
    own = inspect_base(plan_for("PhimoeForCausalLM", MIXTURES["PhimoeForCausalLM"](), served_linears=served))
    assert last(set(own.linears)) == ATTENTION  # its router answers with more than a product


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        # routers that are made of several layers
        ("JetMoe", {"kv_proj"}),
        # towers within the decoder
        ("Phi4Multimodal", {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
        # its head has a part called decoder
        ("ModernBertDecoder", {"q_proj", "k_proj", "v_proj", "Wo", "Wi", "dense"}),
    ],
)
def test_layers_of_unusual_classes(family: str, expected: set[str]):
    with torch.device("meta"):
        skeleton = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")())
    assert last(set(layers_of(skeleton, None).linears)) == expected


# --- what the server can change


def test_layers_that_the_server_cannot_change_are_left_alone(make_plan: MakePlan, tmp_path: Path):
    plan = make_plan(served_linears=sorted(ATTENTION), hyperparameters=SHORT)
    result = train(plan, tmp_path / "out")
    assert last(changed(load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors"))) == ATTENTION
    assert result.not_tuned == ("down_proj, gate_proj, up_proj: the server cannot change it",)
    written = json.loads((tmp_path / "out" / "hyperparameters.json").read_text())["target_modules"]
    assert written["value"] == sorted(ATTENTION)


def test_a_named_layer_that_the_server_cannot_change_is_refused_with_those_that_it_can(
    make_plan: MakePlan, tmp_path: Path
):
    plan = make_plan(served_linears=["q_proj", "v_proj", "qkv"], lora={"target_modules": ["q_proj", "up_proj"]})
    with pytest.raises(
        InputError, match=r"names up_proj; the server can change these layers: q_proj, v_proj\. "
    ) as caught:
        train(plan, tmp_path / "out")
    assert (caught.value.code, caught.value.param) == ("unknown_target_modules", "lora.target_modules")


def test_without_the_servers_facts_nothing_changes(make_plan: MakePlan, tmp_path: Path):
    for name, served in (("known", sorted(LLAMA)), ("unknown", None)):
        train(make_plan(served_linears=served, hyperparameters=SHORT), tmp_path / name)
    one, other = (tmp_path / name / "adapter" for name in ("known", "unknown"))
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (one / file).read_bytes() == (other / file).read_bytes()

"""What vLLM's own classes tell of a base: the layers that an adapter can change, by the names that PEFT gives them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import transformers

from shared.base import ServerFacts
from tests.support.environment import without_settings
from tests.support.user import ROOT

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

# As the render server does it, for one base after another. torchvision is a stand-in: this project leaves it out, and
# vLLM's multimodal classes import it, but do not use it while they are built.
PROGRAM = """
import importlib.abc, importlib.machinery, sys
from services.inference.vllm import facts, render
from shared.settings import Settings

class Torchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        found = name.split(".")[0] == "torchvision"
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if found else None
    def create_module(self, spec): return None
    def exec_module(self, module): module.__getattr__ = self.anything
    def anything(self, name):
        if name.startswith("__"): raise AttributeError(name)
        return type(name, (), {})

render._prepare(Settings())
from vllm.entrypoints.cli import launch
for base in sorted(sys.argv[1:], key=lambda base: "Llava" not in base):
    args = render._arguments(launch, Settings.model_validate({"model": {"id": "acme/base", "path": base}}))
    print("FACTS", base, facts.server_facts(render._engine_arguments(args)).model_dump_json())
    sys.meta_path.append(Torchvision())  # after the first
"""
SIZES: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
TEXT: dict[str, Any] = {**SIZES, "num_key_value_heads": 2}
HEADS: dict[str, Any] = {**TEXT, "head_dim": 16}
GEMMA_VISION = {**SIZES, "image_size": 28, "patch_size": 14, "num_hidden_layers": 1}
QWEN_VISION = {"depth": 1, "hidden_size": 64, "intermediate_size": 64, "num_heads": 4, "out_hidden_size": 64}
CLIP_VISION = {"model_type": "clip_vision_model", **GEMMA_VISION}
MROPE = {"rope_type": "default", "type": "mrope", "mrope_section": [2, 3, 3], "rope_theta": 10_000.0}
ATTENTION = ("k_proj", "o_proj", "q_proj", "v_proj")
USUAL = (*ATTENTION, "down_proj", "gate_proj", "up_proj")

BASES: Mapping[str, tuple[type[Any], Mapping[str, Any], tuple[str, ...]]] = {
    "LlamaForCausalLM": (transformers.LlamaConfig, TEXT, USUAL),
    "Qwen2ForCausalLM": (transformers.Qwen2Config, TEXT, USUAL),
    "Qwen3ForCausalLM": (transformers.Qwen3Config, HEADS, USUAL),
    "Gemma2ForCausalLM": (transformers.Gemma2Config, HEADS, USUAL),
    "Gemma3ForCausalLM": (transformers.Gemma3TextConfig, HEADS, USUAL),
    "Phi3ForCausalLM": (
        transformers.Phi3Config,
        {**TEXT, "pad_token_id": 0},
        ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    ),
    "MixtralForCausalLM": (
        transformers.MixtralConfig,
        {**TEXT, "num_local_experts": 4},
        (*ATTENTION, "gate", "w1", "w2", "w3"),
    ),
    # its experts are one tensor
    "GptOssForCausalLM": (transformers.GptOssConfig, {**HEADS, "num_local_experts": 4}, (*ATTENTION, "router")),
    # vLLM has no class of its own for it any more, and builds that of transformers
    "GPTNeoXForCausalLM": (
        transformers.GPTNeoXConfig,
        SIZES,
        ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    ),
    # the vision towers have fc1, fc2, out_proj and qkv, proj, attn.qkv_proj
    "Gemma3ForConditionalGeneration": (
        transformers.Gemma3Config,
        {"text_config": HEADS, "vision_config": GEMMA_VISION, "mm_tokens_per_image": 4},
        USUAL,
    ),
    "Qwen2_5_VLForConditionalGeneration": (
        transformers.Qwen2_5_VLConfig,
        {"text_config": {**TEXT, "rope_scaling": MROPE}, "vision_config": QWEN_VISION},
        USUAL,
    ),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ServerFacts]:
    """The facts of all bases, by architecture. One process finds them, because it imports vLLM for ten seconds."""
    root = tmp_path_factory.mktemp("bases")
    for architecture, (kind, fields, _) in BASES.items():
        kind(**fields, architectures=[architecture]).save_pretrained(root / architecture)
    transformers.LlamaConfig(**TEXT, architectures=["NewForCausalLM"]).save_pretrained(root / "NewForCausalLM")
    pictures = {"text_config": TEXT, "vision_config": CLIP_VISION, "image_seq_length": 4}
    llava = transformers.LlavaConfig(**pictures, architectures=["LlavaForConditionalGeneration"])
    llava.save_pretrained(root / "LlavaForConditionalGeneration")
    fp8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128], "fmt": "e4m3"}
    quantized = transformers.LlamaConfig(**TEXT, architectures=["LlamaForCausalLM"]).to_dict()
    (root / "fp8").mkdir()
    (root / "fp8" / "config.json").write_text(json.dumps({**quantized, "quantization_config": fp8}))
    (root / "NoBase").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, sorted(root.iterdir()))],
        env={**without_settings(os.environ), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.split(" ", 2) for line in done.stdout.splitlines() if line.startswith("FACTS ")]
    facts = {Path(base).name: ServerFacts.model_validate(json.loads(text)) for _, base, text in lines}
    assert len(facts) == len(BASES) + 4, done.stderr[-5000:]
    return facts


@pytest.mark.parametrize("architecture", BASES)
def test_the_layers_have_the_names_that_peft_gives_them(found: dict[str, ServerFacts], architecture: str) -> None:
    facts = found[architecture]

    assert facts.problem is None
    assert sorted(facts.linears or ()) == sorted(BASES[architecture][2])


def test_a_model_that_vllm_does_not_know_is_a_problem_in_one_line(found: dict[str, ServerFacts]) -> None:
    facts = found["NewForCausalLM"]

    assert facts.linears is None
    assert facts.problem is not None
    assert facts.problem.startswith(f"vLLM {facts.version} cannot serve this base: ")
    assert "NewForCausalLM" in facts.problem
    assert "\n" not in facts.problem


def test_a_quantized_base_has_the_same_layers_though_no_cpu_computes_with_it(found: dict[str, ServerFacts]) -> None:
    assert found["fp8"].problem is None
    assert found["fp8"].linears == found["LlamaForCausalLM"].linears


def test_a_class_that_cannot_be_imported_is_a_problem_with_its_cause(found: dict[str, ServerFacts]) -> None:
    facts = found["LlavaForConditionalGeneration"]

    assert facts.problem is not None
    assert facts.problem.endswith("its class cannot be imported: No module named 'torchvision'")


def test_a_base_that_cannot_be_read_tells_nothing(found: dict[str, ServerFacts]) -> None:
    assert (found["NoBase"].linears, found["NoBase"].problem) == (None, None)

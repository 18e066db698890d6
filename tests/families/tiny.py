"""Tiny bases without weights, of the classes that other families have: enough for vLLM's render server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.families.templates import OURS, PACKAGES, folder_of
from tests.families.vocabulary import Kind, small_tokenizer

_TRL = next(package for package in PACKAGES if package.startswith("trl"))
_CHATML = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
_HERMES = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_DEEPSEEK = ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")
_COHERE = ("<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>")
_LLAMA_3 = ("<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|python_tag|>", "<|end_of_text|>")
_MISTRAL = ("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]")
_GLM = ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>", "<think>", "</think>")
_GLM += ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "/nothink")


@dataclass(frozen=True)
class Family:
    """What its folder is made of, and the parsers that vLLM is told to use."""

    model_type: str
    template: str
    """The name of one of ours or of trl's."""
    special: tuple[str, ...]
    end: str
    begin: str = "<s>"
    tokenizer: Kind = "byte_level"
    also_stops: tuple[str, ...] = ()
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    config: dict[str, Any] = field(default_factory=dict)


FAMILIES = {
    "Llama 2": Family("llama", "llama_2", (), "</s>", tokenizer="legacy"),
    "Llama 3.1": Family(
        *("llama", "llama3_1", _LLAMA_3, "<|eot_id|>", "<|begin_of_text|>"),
        also_stops=("<|eom_id|>",),
        tool_call_parser="llama3_json",
    ),
    "Mistral": Family("mistral", "mistral_0.3", _MISTRAL, "</s>", tokenizer="first", tool_call_parser="mistral"),
    "Qwen 2.5": Family("qwen2", "qwen2_5", (*_CHATML, *_HERMES[:2]), "<|im_end|>", tool_call_parser="hermes"),
    "Qwen 3": Family(
        "qwen3", "qwen3", (*_CHATML, *_HERMES), "<|im_end|>", tool_call_parser="hermes", reasoning_parser="qwen3"
    ),
    "Qwen 3 MoE": Family(
        *("qwen3_moe", "qwen3_instruct_2507", (*_CHATML, *_HERMES), "<|im_end|>"),
        tool_call_parser="hermes",
        config={"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
    "R1 distill": Family(
        *("qwen2", "deepseek_r1_distill", _DEEPSEEK, "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>"),
        reasoning_parser="deepseek_r1",
    ),
    "Gemma 2": Family("gemma2", "gemma", ("<start_of_turn>", "<end_of_turn>"), "<eos>", "<bos>", "first"),
    "Gemma 3": Family("gemma3_text", "gemma3", ("<start_of_turn>", "<end_of_turn>"), "<eos>", "<bos>", "first"),
    "Phi 3": Family("phi3", "phi3", _ROLES, "<|end|>", tokenizer="phi3", also_stops=("<|endoftext|>",)),
    "Phi 4": Family("phi3", "phi_4", ("<|im_start|>", "<|im_sep|>"), "<|im_end|>", "<|endoftext|>"),
    "Granite 4": Family(
        *("granite", "granite_4", ("<|start_of_role|>", "<|end_of_role|>", "<tool_call>"), "<|end_of_text|>"),
        tool_call_parser="hermes",
    ),
    "OLMo 2": Family("olmo2", "olmo_2", (), "<|endoftext|>", "<|endoftext|>"),
    "GPT-NeoX": Family("gpt_neox", "zephyr", (), "<|endoftext|>", "<|endoftext|>", "neox"),
    "Command-R": Family("cohere", "cohere", _COHERE, "<|END_OF_TURN_TOKEN|>", "<BOS_TOKEN>"),
    "GLM 4.5": Family(
        *("glm4_moe", "glm4moe", _GLM, "<|endoftext|>", "[gMASK]"),
        also_stops=("<|user|>", "<|observation|>"),
        tool_call_parser="glm47",
        reasoning_parser="glm47",
        config={"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
}
_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 8192,
    "pad_token_id": None,
}


def make_folder(family: Family, folder: Path) -> Path:
    """`config.json`, `generation_config.json`, tokenizer and chat template of a tiny base."""
    ends = ["<end_of_turn>"] if "<end_of_turn>" in family.special else []
    special = list(dict.fromkeys([*family.special, *family.also_stops]))
    tokenizer = small_tokenizer(family.tokenizer, special, begin=family.begin, end=family.end)
    tokenizer.chat_template = template_of(family)
    stops = tokenizer.convert_tokens_to_ids([family.end, *ends, *family.also_stops])
    return write_base(folder, tokenizer, stops, family.model_type, **family.config)


def write_base(folder: Path, tokenizer: Any, stops: Sequence[int], model_type: str = "llama", **config: Any) -> Path:
    tokenizer.save_pretrained(folder)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": list(stops)}
    made = CONFIG_MAPPING[model_type](**_SIZES, **ends, vocab_size=len(tokenizer), **config)
    made.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]]
    made.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": list(stops)}))
    return folder


def template_of(family: Family) -> str:
    ours = OURS / f"{family.template}.jinja"
    path = ours if ours.exists() else folder_of(_TRL) / ours.name
    return path.read_text(encoding="utf-8")

"""The profile of a base from its files, and what a user sets of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from shared.base import Attention, BaseProfile, ProfileOverride
from shared.base.making import profile_at
from shared.errors import InputError
from tests.support.data.micro_base import CHATML, make_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "base")


def write(folder: Path, template: str | None = CHATML, **config: Any) -> Path:
    """A base without weights."""
    make_tokenizer(template).save_pretrained(folder)
    stated = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 128}
    (folder / "config.json").write_text(json.dumps({**stated, **config}))
    return folder


def profile(folder: Path, **override: Any) -> BaseProfile:
    return profile_at(str(folder), "tiny", ProfileOverride.model_validate(override))


def test_a_profile_says_what_the_files_say(folder: Path) -> None:
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [2, 0], "temperature": 0.3, "do_sample": True, "repetition_penalty": 1.1})
    )
    found = profile(folder)
    assert (found.architecture, found.context, found.tokenizer_mode) == ("LlamaForCausalLM", 128, "auto")
    assert (found.content_format, found.tool_call_parser) == ("string", "hermes")
    assert (found.stop_ids, found.stop_tokens) == ((2, 0), ("<|im_end|>", "<|pad|>"))
    assert found.sampling == {"temperature": 0.3, "repetition_penalty": 1.1}
    assert found.server is None


def test_without_a_generation_config_the_config_names_stop_tokens(tmp_path: Path) -> None:
    """As vLLM does."""
    assert profile(write(tmp_path, eos_token_id=0)).stop_ids == (2, 0)


def test_a_base_without_a_template(tmp_path: Path) -> None:
    found = profile(write(tmp_path, None))
    assert (found.template_digest, found.content_format, found.reasoning_parser, found.tool_call_parser) == (None,) * 4
    assert not any(found.knows.model_dump().values())


def test_a_base_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tiny cannot be loaded"):
        profile(tmp_path)


@pytest.mark.parametrize(
    ("config", "attention"),
    [
        ({}, Attention()),
        ({"model_type": "gemma2", "attn_logit_softcapping": 50.0}, Attention(soft_cap=True, sliding_window=4096)),
        ({"model_type": "gpt_oss"}, Attention(sinks=True, sliding_window=128)),
        ({"model_type": "mistral", "sliding_window": 4096}, Attention(sliding_window=4096)),
        ({"model_type": "mistral", "sliding_window": None}, Attention()),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False}, Attention()),
    ],
)
def test_what_attention_needs(config: dict[str, Any], attention: Attention, tmp_path: Path) -> None:
    assert profile(write(tmp_path, **config)).attention == attention


def test_mistrals_own_format_beside_the_tokenizer_is_not_used(folder: Path) -> None:
    """vLLM would take it by itself, and write other prompts than those that are trained."""
    (folder / "tekken.json").write_text("{}")
    assert profile(folder).tokenizer_mode == "hf"


def test_the_digest_is_of_the_files_and_not_of_their_place_or_the_weights(folder: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copied / "model.safetensors").write_bytes(b"weights")
    (copied / "README.md").write_text("words")
    assert profile(copied).digest == profile(folder).digest
    (copied / "chat_template.jinja").write_text(CHATML + " ")
    assert profile(copied).digest != profile(folder).digest


def test_what_is_set_replaces_what_was_found_and_is_another_profile(folder: Path) -> None:
    found = profile(folder)
    changed = profile(folder, tool_call_parser=None, reasoning_parser="qwen3", chat_template_kwargs={"deep": False})
    assert (changed.tool_call_parser, changed.reasoning_parser) == (None, "qwen3")
    assert changed.chat_template_kwargs == {"deep": False}
    assert changed.digest != found.digest
    assert changed.context == found.context


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"reasoning_parsr": "qwen3"}, "reasoning_parsr cannot be set; reasoning, reasoning_parser, "),
        ({"reasoning_parser": 3}, "valid string"),
        ({"reasoning": "sometimes"}, "'none', 'always' or 'switchable'"),
        ({"tool_call_parser": ""}, "null switches the parser off"),
        ({"tool_call_parser": "--api-key"}, "null switches the parser off"),
        ({"chat_template_kwargs": {"tools": []}}, "may not hold tools"),
    ],
)
def test_what_cannot_be_set(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ProfileOverride.model_validate(wrong)

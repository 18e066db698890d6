"""What is read of a config without torch is what the training finds in the built model."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from services.trainer.estimate.sizes import attention_of, is_known, sizes_of
from tests.unit.trainer.engine.report.bases import LLAMA_8B, facts_of

pytestmark = pytest.mark.torch

SMALL = {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 448, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 4, "num_key_value_heads": 2}
OTHER_HEADS = {**SMALL, "head_dim": 48}
CONFIGS = [
    LLAMA_8B,
    transformers.LlamaConfig(**SMALL, tie_word_embeddings=True),
    transformers.LlamaConfig(**SMALL, attention_bias=True),
    transformers.MistralConfig(**SMALL),
    transformers.Qwen2Config(**SMALL),
    transformers.Qwen3Config(**OTHER_HEADS),
    transformers.GemmaConfig(**OTHER_HEADS),
    transformers.Gemma2Config(**OTHER_HEADS),
    transformers.Gemma3TextConfig(**OTHER_HEADS),
    transformers.Phi3Config(**SMALL, pad_token_id=0),
    transformers.SmolLM3Config(**SMALL, pad_token_id=0),
    transformers.Olmo2Config(**SMALL),
    transformers.GraniteConfig(**SMALL),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{type(config).__name__}-{config.hidden_size}")
def test_the_layers_of_a_config_are_those_of_the_model(config: Any):
    built, read = facts_of(config), sizes_of(config)
    assert is_known(config)
    assert read.layers.linears == built.layers.linears
    assert (read.layers.matmuls, read.layers.head) == (built.layers.matmuls, built.layers.head)
    assert read.parameters == built.parameters


def test_a_family_that_is_not_known_and_experts_are_said():
    mixtral = transformers.MixtralConfig(**SMALL, num_local_experts=8, num_experts_per_tok=2)
    assert not is_known(mixtral) and sizes_of(mixtral).layers.experts
    assert not is_known(transformers.MambaConfig(hidden_size=64, num_hidden_layers=2, vocab_size=128))


def test_the_attention_is_the_one_that_the_training_chooses():
    assert attention_of(transformers.Gemma2Config(**OTHER_HEADS), cuda=True) == "eager"
    assert attention_of(LLAMA_8B, cuda=True) == "varlen"
    assert attention_of(LLAMA_8B, cuda=False) == "sdpa"

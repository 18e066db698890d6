"""A base of 8 G parameters, of which only the config is needed, and what is known of a base from its config."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from services.trainer.engine.model.targets import layers_of
from services.trainer.engine.report.choices import Sizes

LLAMA_8B = LlamaConfig(
    vocab_size=128_256,
    hidden_size=4096,
    intermediate_size=14_336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
)


def facts_of(config: Any) -> Any:
    """As `BaseFacts`, as far as reports read them."""
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    layers = layers_of(skeleton, None)
    parameters = sum(parameter.numel() for parameter in skeleton.parameters())
    attention = SimpleNamespace(implementation="sdpa", reason="a test")
    return SimpleNamespace(
        config=config,
        layers=layers,
        linears=layers.linears,
        parameters=parameters,
        attention=attention,
        sizes=Sizes(config, parameters, layers, None),
    )

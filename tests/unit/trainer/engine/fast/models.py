"""Small random models with an adapter on all linear layers, in float64, and what they compute."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "head_dim": 16,
    "pad_token_id": 0,
}


def small_base(model_class: str = "Llama", dtype: Any = torch.float64) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{model_class}Config")(**SIZES)
    return getattr(transformers, f"{model_class}ForCausalLM")(config).to(dtype)


def with_adapter(base: Any) -> Any:
    torch.manual_seed(1)
    return get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", init_lora_weights=False))


def small_model(model_class: str = "Llama") -> Any:
    model = with_adapter(small_base(model_class))
    for parameter in model.parameters():
        parameter.data = parameter.data.double()
    return model


def gradients_of(model: Any) -> dict[str, Any]:
    """Those of a loss by each parameter of the adapter, and the loss itself."""
    tokens = torch.randint(0, 64, (2, 24), generator=torch.Generator().manual_seed(2))
    model.zero_grad()
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {**found, "loss": loss.detach()}

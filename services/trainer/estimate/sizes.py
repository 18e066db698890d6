"""The sizes of a base from its `config.json`, without torch: the linear layers that the training finds in the built
model. A test compares both."""

from __future__ import annotations

from typing import Any

from services.trainer.domain.layers import Layers, heads_of, key_heads_of
from services.trainer.engine.report.choices import Sizes

GATED = {
    # family -> the name of each linear layer, and its inputs and outputs by their widths
    "separate": {
        "self_attn.q_proj": ("hidden", "queries"),
        "self_attn.k_proj": ("hidden", "keys"),
        "self_attn.v_proj": ("hidden", "keys"),
        "self_attn.o_proj": ("queries", "hidden"),
        "mlp.gate_proj": ("hidden", "inner"),
        "mlp.up_proj": ("hidden", "inner"),
        "mlp.down_proj": ("inner", "hidden"),
    },
    "joined": {
        "self_attn.qkv_proj": ("hidden", "queries_and_keys"),
        "self_attn.o_proj": ("queries", "hidden"),
        "mlp.gate_up_proj": ("hidden", "two_inner"),
        "mlp.down_proj": ("inner", "hidden"),
    },
}
JOINED = frozenset({"phi3"})
LIKE_LLAMA = frozenset(
    {"llama", "mistral", "ministral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3", "olmo2", "granite"}
)
"""Families whose layers are those of a Llama, by the `model_type` of their text decoder."""
FOUR_NORMS = frozenset({"gemma2", "gemma3_text"})
NORMED_HEADS = frozenset({"qwen3", "gemma3_text", "olmo2"})
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def sizes_of(config: Any, tied: bool | None = None) -> Sizes:
    """The sizes of the base with this config of transformers. A family that is not known is taken for a Llama, see
    `is_known`."""
    text = config.get_text_config()
    kind = getattr(text, "model_type", "")
    heads, head_dim = heads_of(text)
    hidden = int(getattr(text, "hidden_size", 0) or 1)
    inner = int(getattr(text, "intermediate_size", None) or 4 * hidden)
    layers = int(getattr(text, "num_hidden_layers", 1))
    vocabulary = int(getattr(text, "vocab_size", 0))
    queries, keys = heads * head_dim, key_heads_of(text) * head_dim
    width = {
        "hidden": hidden,
        "queries": queries,
        "keys": keys,
        "inner": inner,
        "two_inner": 2 * inner,
        "queries_and_keys": queries + 2 * keys,
    }
    form = GATED["joined" if kind in JOINED else "separate"]
    linears = {
        f"model.layers.{number}.{name}": width[one] + width[other]
        for number in range(layers)
        for name, (one, other) in form.items()
    }
    matmuls = layers * sum(width[one] * width[other] for one, other in form.values())
    if tied is None:
        tied = bool(getattr(config, "tie_word_embeddings", False) or getattr(text, "tie_word_embeddings", False))
    norms = layers * hidden * (4 if kind in FOUR_NORMS else 2) + hidden
    norms += layers * ((queries + keys) if kind == "olmo2" else 2 * head_dim) if kind in NORMED_HEADS else 0
    biases = layers * (queries + 2 * keys) if kind == "qwen2" or getattr(text, "attention_bias", False) else 0
    biases += layers * hidden if getattr(text, "attention_bias", False) else 0
    head = vocabulary * hidden
    return Sizes(
        config=text,
        parameters=matmuls + norms + biases + head * (1 if tied else 2),
        layers=Layers(linears, (), has_experts(text), (), matmuls, head),
        context=getattr(text, "max_position_embeddings", None),
    )


def is_known(config: Any) -> bool:
    """Whether the layers of the base are known for certain."""
    text = config.get_text_config()
    kind = getattr(text, "model_type", "")
    return kind in LIKE_LLAMA | JOINED and not has_experts(text)


def has_experts(text: Any) -> bool:
    return any(isinstance(getattr(text, name, None), int) and getattr(text, name) > 1 for name in EXPERTS)


def attention_of(config: Any, *, cuda: bool) -> str:
    """Which implementation will compute the attention, as `engine/model/attention.py` chooses it."""
    text = config.get_text_config()
    if getattr(text, "attn_logit_softcapping", None) or getattr(text, "model_type", "") == "gpt_oss":
        return "eager"
    _, head_dim = heads_of(text)
    fits = 0 < head_dim <= 256 and head_dim % 8 == 0 and not getattr(text, "attention_dropout", 0.0)
    return "varlen" if cuda and fits else "sdpa"

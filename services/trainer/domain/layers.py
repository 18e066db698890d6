"""The linear layers of a base, and what follows from them and its config: its sizes, and the cost of a token. Pure, so
that an estimate without torch and the training itself ask the same functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from services.trainer.domain.memory_plan import Shape
from services.trainer.domain.utilization import Cost, attention_flops
from shared.events import Lora


@dataclass(frozen=True)
class Layers:
    """The linear layers of a base.

    `linears`: the names of those that an adapter may change, and for each the inputs plus the outputs, which is how
    many parameters an adapter of rank 1 adds. `others`: the names of those that it may not; the output head is in
    neither. `experts`: there are experts, as parameters without layers. `not_tuned`: for people, the parts of the base
    that no adapter changes, each with the reason. `matmuls`: the weights of all linear layers of the text decoder;
    `head`: those of the output head.
    """

    linears: dict[str, int]
    others: tuple[str, ...]
    experts: bool
    not_tuned: tuple[str, ...]
    matmuls: int = 0
    head: int = 0


def targets_of(lora: Lora, linears: Iterable[str]) -> list[str]:
    """The names of the linear layers that an adapter with these settings changes."""
    if lora.target_modules == "all-linear":
        return list(linears)
    return [name for name in linears if any(is_target(target, name) for target in lora.target_modules)]


def is_target(target: str, name: str) -> bool:
    """Whether `target` of the settings means the layer `name`."""
    return name == target or name.endswith(f".{target}")


def heads_of(config: Any) -> tuple[int, int]:
    """How many heads the attention of a text decoder has, and the size of each; (0, 0): it has none."""
    heads: int = getattr(config, "num_attention_heads", 0)
    return heads, (getattr(config, "head_dim", None) or config.hidden_size // heads) if heads else 0


def key_heads_of(config: Any) -> int:
    """How many heads of keys it has: as many as of queries, where the config says nothing else."""
    return getattr(config, "num_key_value_heads", None) or heads_of(config)[0]


def shape_of(config: Any, parameters: int, layers: Layers) -> Shape:
    """The sizes of a base with the text config `config`. What that does not state is taken for that of a Llama."""
    hidden = int(getattr(config, "hidden_size", 0) or 1)
    heads, head_dim = heads_of(config)
    keys = key_heads_of(config)
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    if expert := getattr(config, "moe_intermediate_size", None):
        inner = expert
    if layers.experts:
        inner *= getattr(config, "num_experts_per_tok", None) or 1
    return Shape(
        parameters=parameters,
        matmuls=layers.matmuls,
        layers=int(getattr(config, "num_hidden_layers", 1)),
        hidden=hidden,
        heads=heads or 1,
        attention=heads * head_dim or hidden,
        keys=keys * head_dim or hidden,
        intermediate=int(inner),
        vocabulary=int(getattr(config, "vocab_size", 0) or layers.head // hidden),
    )


def cost_of_token(
    config: Any, layers: Layers, *, squares: float, tokens: int, trained_tokens: int, peak: float
) -> Cost | None:
    """What a token of a training costs on average. `squares`: the sum of the squared lengths of the sequences that have
    `tokens`; `peak`: FLOP/s. None: there are experts, of which a token meets only some, or nothing to train on."""
    if layers.experts or not tokens:
        return None
    heads, head_dim = heads_of(config)
    kinds = getattr(config, "layer_types", None)
    attending = sum("attention" in kind for kind in kinds) if kinds else getattr(config, "num_hidden_layers", 0)
    # logits are computed only where the next token is trained on
    head = layers.head * trained_tokens / tokens
    return Cost(layers.matmuls + head, attention_flops(squares, tokens, attending, heads * head_dim), peak)

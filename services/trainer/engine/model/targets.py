"""Which layers an adapter changes: linear layers of the text decoder that the server can change, too."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from peft import LoraConfig
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

from services.trainer.domain.layers import Layers, is_target, targets_of
from shared.errors import InputError
from shared.events import Lora

ROUTERS = ("gate", "router", "shared_expert_gate")
TOWERS = ("vision", "visual", "image", "video", "audio", "speech", "multi_modal")
"""What the names of parts that are not for text hold, where a class has them within its decoder (Phi 4 multimodal)."""


def layers_of(skeleton: Any, served: Collection[str] | None) -> Layers:
    """The layers of a model without weights. `served`: the last names of the layers that the server can change; None:
    it was not asked."""
    decoder = _decoder(skeleton)
    head = skeleton.get_output_embeddings()
    linears: dict[str, int] = {}
    others: list[str] = []
    unserved: set[str] = set()
    routers: set[str] = set()
    outside: set[str] = set()
    matmuls = 0
    for name, module in skeleton.named_modules():
        if not isinstance(module, torch.nn.Linear) or module is head:
            continue
        last = _last(name)
        matmuls += module.weight.numel()
        if not name.startswith(decoder) or any(tower in name for tower in TOWERS):
            outside.add(".".join(name.split(".")[:2]) if name.startswith("model.") else name.split(".")[0])
            matmuls -= module.weight.numel()
        elif _is_router(name, module) and not _is_served_router(last, module, served):
            routers.add(last)
        elif served is not None and last not in served:
            unserved.add(last)
        else:
            linears[name] = module.in_features + module.out_features
            continue
        others.append(name)
    not_tuned = [f"{_list(outside)}: not part of the text decoder"] if outside else []
    not_tuned += [f"{_list(routers)}: it chooses the experts"] if routers else []
    not_tuned += [f"{_list(unserved)}: the server cannot change it"] if unserved else []
    mistaken = _taken_for_experts(skeleton, linears)
    not_tuned += [f"{_list({_last(name) for name in mistaken})}: PEFT takes them for experts"] if mistaken else []
    linears = {name: size for name, size in linears.items() if name not in mistaken}
    experts = _experts(skeleton)
    return Layers(
        linears,
        others=(*others, *sorted(mistaken)),
        experts=bool(experts),
        not_tuned=(*not_tuned, *experts),
        matmuls=matmuls,
        head=0 if head is None else sum(parameter.numel() for parameter in head.parameters()),
    )


def targets_for_peft(lora: Lora, layers: Layers) -> str | list[str]:
    """The same in PEFT's words: as short as they are said in `lora`, if that means no other layer."""
    asked = lora.target_modules
    if asked == "all-linear":
        # Where there are experts, PEFT's "all-linear" means them and their router, too.
        return list(layers.linears) if layers.others or layers.experts else asked
    if any(is_target(target, name) for target in asked for name in layers.others):
        return targets_of(lora, layers.linears)
    return list(asked)


def check_servable(
    lora: Lora, rank: int, max_rank: int, linears: Iterable[str], served: Collection[str] | None = None
) -> None:
    """Refuse an adapter that the server could not load, before time is spent on training it. `served`: as in
    `layers_of`.

    Raises:
        InputError: `lora_rank_too_high` or `unknown_target_modules`.
    """
    if rank > max_rank:
        raise InputError(
            "lora_rank_too_high",
            f"lora.r is {rank}, but adapters are served up to rank {max_rank}: lower lora.r, "
            "or raise TUNESTREAM_VLLM__MAX_LORA_RANK",
            "lora.r",
        )
    if lora.target_modules == "all-linear":
        return
    unknown = [t for t in lora.target_modules if not any(is_target(t, n) for n in linears)]
    if unknown or not lora.target_modules:
        there = _list({_last(name) for name in linears})
        whose = "the base model has these linear layers" if served is None else "the server can change these layers"
        raise InputError(
            "unknown_target_modules",
            f"lora.target_modules names {', '.join(unknown) or 'nothing'}; {whose}: {there}. Name some of them, or use "
            "'all-linear'",
            "lora.target_modules",
        )


def _is_router(name: str, module: Any) -> bool:
    return _last(name) in ROUTERS or "router" in name or "Router" in type(module).__name__


def _is_served_router(last: str, module: Any, served: Collection[str] | None) -> bool:
    """A class of its own answers with more than a product, which an adapter cannot be added to."""
    return served is not None and last in served and last in ROUTERS and type(module) is torch.nn.Linear


def _decoder(skeleton: Any) -> str:
    """What the names of the layers of the text decoder begin with."""
    decoder = skeleton.get_decoder()
    if not any(isinstance(module, torch.nn.Linear) for module in decoder.modules() if module is not decoder):
        return ""  # in some classes a part of the head is called so
    name = next((name for name, module in skeleton.named_modules() if module is decoder), "")
    return f"{name}." if name else ""


def _experts(skeleton: Any) -> list[str]:
    parts = {name: part for name, part in skeleton.named_parameters() if "experts" in name.split(".")[:-1]}
    experts = {name: part.numel() for name, part in parts.items() if part.dim() == 3}
    if not experts:
        return []
    share = sum(experts.values()) / sum(part.numel() for part in skeleton.parameters())
    names = {".".join(name.split(".")[-2:]) for name in experts}
    return [f"{_list(names)} ({share:.0%} of the base): experts are not built as linear layers"]


def _taken_for_experts(skeleton: Any, names: Iterable[str]) -> set[str]:
    """The layers that PEFT does not find by their names: where transformers 5 has fused experts, it takes the names of
    dense layers and shared experts (`mlp.gate_proj`) for those that an expert had in transformers 4."""
    config = LoraConfig(target_modules=list(names))
    convert_peft_config_for_transformers(config, skeleton, None)
    return set(names) - set(config.target_modules or ())


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))

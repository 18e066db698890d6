"""What is known of the base before its weights are loaded: tokenizer, limits, stop tokens, linear layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from services.trainer.domain.plan import Plan
from shared.base import stop_ids
from shared.base.reading import generation_config, load_tokenizer
from shared.errors import InputError
from shared.events import Lora


@dataclass(frozen=True)
class BaseFacts:
    """What the run needs to know of the base.

    `stop_ids`: the tokens at which the server stops, the tokenizer's EOS first. `linears`: the names of the linear
    layers that an adapter may change, and for each the inputs plus the outputs, which is how many parameters an adapter
    of rank 1 adds; the output head is not one of them. `context`: how many tokens the model can read; None: it states
    no limit.
    """

    config: Any
    tokenizer: Any
    generation: Any
    stop_ids: tuple[int, ...]
    pad_id: int
    context: int | None
    parameters: int
    linears: dict[str, int]


def inspect_base(plan: Plan) -> BaseFacts:
    """Read the small files of the base, and build the model without its weights.

    Raises:
        InputError: `model_not_found`: there is no such model. `unsupported_base`: it cannot be tuned, or only by
            running code that it brings.
    """
    location = plan.base.location
    try:
        config = AutoConfig.from_pretrained(location, trust_remote_code=False)
        tokenizer = load_tokenizer(location)
    except (OSError, ValueError) as error:
        raise not_loadable(plan, error) from None
    if getattr(config, "quantization_config", None):
        raise _unsupported(plan, "its weights are quantized already; name the original (bfloat16) model")
    try:
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except ValueError:
        raise _unsupported(
            plan, f"{type(config).__name__} is not a causal language model that transformers knows"
        ) from None
    generation = generation_config(location, config)
    stops = stop_ids(tokenizer, generation)
    pad_id = next((i for i in (tokenizer.pad_token_id, *stops) if i is not None), 0)
    text_config = config.get_text_config()
    return BaseFacts(
        config=config,
        tokenizer=tokenizer,
        generation=generation,
        stop_ids=stops,
        pad_id=pad_id,
        context=getattr(text_config, "max_position_embeddings", None),
        parameters=sum(parameter.numel() for parameter in skeleton.parameters()),
        linears=_linears(skeleton),
    )


def targets_of(lora: Lora, linears: Iterable[str]) -> list[str]:
    """The names of the linear layers that an adapter with these settings changes."""
    if lora.target_modules == "all-linear":
        return list(linears)
    return [name for name in linears if any(_is(target, name) for target in lora.target_modules)]


def check_servable(lora: Lora, rank: int, max_rank: int, linears: Iterable[str]) -> None:
    """Refuse an adapter that the server could not load, before time is spent on training it.

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
    unknown = [t for t in lora.target_modules if not any(_is(t, n) for n in linears)]
    if unknown or not lora.target_modules:
        there = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linears}))
        raise InputError(
            "unknown_target_modules",
            f"lora.target_modules names {', '.join(unknown) or 'nothing'}; the base model has these linear layers: "
            f"{there}. Name some of them, or use 'all-linear'",
            "lora.target_modules",
        )


def _is(target: str, name: str) -> bool:
    return name == target or name.endswith(f".{target}")


def not_loadable(plan: Plan, error: Exception) -> InputError:
    """The error for the user when transformers raised `error` while loading the base."""
    location = plan.base.location
    text = str(error)
    if "trust_remote_code" in text:
        return _unsupported(plan, "it brings Python code of its own, which is never run")
    if "safetensors" in text:
        return _unsupported(plan, "its weights are not in the safetensors format; convert them first")
    if not Path(location).is_dir():
        message = (
            f"base model {plan.base.id!r} was not found: {location!r} is not a local folder, and the hub does not have "
            "it or cannot be reached; check the name, or download it and set TUNESTREAM_MODEL__PATH"
        )
        return InputError("model_not_found", message, "model")
    reason = "its folder lacks a readable config.json, tokenizer or weights"
    return _unsupported(plan, f"{reason} ({type(error).__name__})")


def _unsupported(plan: Plan, why: str) -> InputError:
    return InputError("unsupported_base", f"base model {plan.base.id!r} cannot be tuned: {why}", "model")


def _linears(skeleton: Any) -> dict[str, int]:
    head = skeleton.get_output_embeddings()
    return {
        name: module.in_features + module.out_features
        for name, module in skeleton.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }

"""Decides whether vLLM may load an adapter, from its list of files and its `adapter_config.json`.

vLLM 0.32 refuses some of these adapters itself, but only when a request comes, and again on every request. It also
unpickles `.bin` and `.pt` files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

WEIGHTS = "adapter_model.safetensors"
SERVED_FILES = ("adapter_config.json", WEIGHTS)
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
# these initialisations move a part of the base's weights into the adapter, which then does not fit the unchanged base
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


def file_problems(names: Iterable[str]) -> list[str]:
    """What is wrong with a folder that holds these files; empty when it may be served."""
    names = set(names)
    problems = [f"{name} is missing" for name in SERVED_FILES if name not in names]
    return problems + [
        f"{name} is a pickle, which could run code; save the adapter as safetensors"
        for name in sorted(names)
        if name.startswith("adapter_") and name.lower().endswith(PICKLED)
    ]


def config_problems(config: Mapping[str, Any], max_rank: int) -> list[str]:
    """Why an adapter with this PEFT configuration cannot be served at up to `max_rank`; empty if it can."""
    problems = []
    if config.get("peft_type") != "LORA":
        problems.append(f"peft_type is {config.get('peft_type')!r}; only LORA adapters are served")
    rank = max([_rank(config.get("r")), *map(_rank, (config.get("rank_pattern") or {}).values())])
    if not 0 < rank <= max_rank:
        problems.append(f"its rank is {rank}, served are ranks 1 to {max_rank}: raise TUNESTREAM_VLLM__MAX_LORA_RANK")
    if config.get("use_dora"):
        problems.append("it is a DoRA adapter, which vLLM does not serve; train with use_dora off")
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        problems.append("it has biases, which vLLM does not serve; train with bias none")
    if config.get("modules_to_save"):
        problems.append("it replaces whole modules (modules_to_save), which vLLM does not serve")
    if str(config.get("init_lora_weights", "")).lower().startswith(CHANGES_BASE):
        problems.append(f"init_lora_weights is {config['init_lora_weights']!r}, which changes the base's own weights")
    return problems


def _rank(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0

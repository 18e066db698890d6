"""The adapter of an earlier job that a run starts from: checked before the base's weights are loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from services.trainer.domain.layers import targets_of
from services.trainer.domain.plan import Plan
from services.trainer.engine.model.adapter import load_adapter_tensors
from shared.errors import InputError

UNFIT = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "layer_replication")
"""Settings of an adapter with which it is not the LoRA that is trained here."""
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Start:
    """An adapter in PEFT's format. `file`: its tensors; `sha256`: their digest."""

    rank: int
    alpha: int
    rslora: bool
    file: Path
    sha256: str

    def load_into(self, model: Any) -> None:
        """Replace the fresh adapter of `model` by this one."""
        load_adapter_tensors(model, load_file(self.file))


def read_start(plan: Plan, linears: Mapping[str, int]) -> Start | None:
    """The adapter in the folder `plan.start_from`; None: the run starts from a fresh one. `linears`: as in `Layers`.

    Raises:
        InputError: `start_unreadable`: the folder holds no adapter. `start_mismatch`: it is of another base, or has
            another rank, scale or other layers than the plan asks for.
    """
    if plan.start_from is None:
        return None
    folder = Path(plan.start_from)
    file = folder / "adapter_model.safetensors"
    try:
        config = json.loads((folder / "adapter_config.json").read_bytes())
        rank, alpha, rslora = int(config["r"]), int(config["lora_alpha"]), config.get("use_rslora") is True
        with safe_open(file, framework="pt") as tensors:
            shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(
            "start_unreadable",
            f"the adapter that training is to start from cannot be read ({type(error).__name__}): start from a model "
            "that this deployment has trained, or from a base model",
            "model",
        ) from None
    _check_config(plan, config, {"r": rank, "alpha": alpha, "use_rslora": rslora})
    _check_layers(plan, shapes, rank, linears)
    with file.open("rb") as data:
        return Start(rank, alpha, rslora, file, hashlib.file_digest(data, "sha256").hexdigest())


def _check_config(plan: Plan, config: dict[str, Any], settings: dict[str, int | bool]) -> None:
    made_for = config.get("base_model_name_or_path")
    if made_for != plan.base.id:
        raise _mismatch(f"is of base model {made_for!r}, not of {plan.base.id!r}: name its own base", "model")
    unfit = [name for name in UNFIT if config.get(name)]
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or unfit:
        raise _mismatch(f"is not plain LoRA ({', '.join(unfit) or 'peft_type or bias'}): start from another", "model")
    for name, has in settings.items():
        asked = getattr(plan.lora, name)
        if asked not in ("auto", has):
            said, other = (json.dumps(value) for value in (asked, has))
            raise _mismatch(
                f"has {name} {other}, but lora.{name} is {said}: leave it out or set it to {other}", f"lora.{name}"
            )


def _check_layers(plan: Plan, shapes: Shapes, rank: int, linears: Mapping[str, int]) -> None:
    wanted = targets_of(plan.lora, linears)
    names = {f"base_model.model.{layer}.lora_{side}.weight" for layer in wanted for side in "AB"}
    if names != shapes.keys():
        has = sorted({name.split(".lora_")[0].rsplit(".", 1)[-1] for name in shapes})
        raise _mismatch(
            f"changes other layers than lora.target_modules names; its layers are {', '.join(has)}: name these",
            "lora.target_modules",
        )
    if not all(_fits(shapes, layer, rank, linears[layer]) for layer in wanted):
        raise _mismatch("has layers of other sizes than the base model: name the base that it was trained on", "model")


def _fits(shapes: Shapes, layer: str, rank: int, size: int) -> bool:
    a, b = (shapes[f"base_model.model.{layer}.lora_{side}.weight"] for side in "AB")
    return len(a) == len(b) == 2 and a[0] == b[1] == rank and a[1] + b[0] == size


def _mismatch(what: str, param: str) -> InputError:
    return InputError("start_mismatch", f"the adapter that training is to start from {what}", param)

"""What a run will need: gathers the facts that `domain/recipe.py` and `domain/memory_plan.py` plan with."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import JsonValue

from services.trainer.domain.fits import Fit
from services.trainer.domain.layers import heads_of, key_heads_of
from services.trainer.domain.memory_plan import GIB
from services.trainer.domain.plan import Plan
from services.trainer.domain.recipe import Device, Planner, Recipe
from services.trainer.domain.speeds import PLANNED, Correction, Estimate
from services.trainer.engine.data.batches import epoch_order
from services.trainer.engine.fast import varlen
from services.trainer.engine.messages import Estimated
from services.trainer.engine.model.base import BaseFacts
from services.trainer.engine.model.offload import host_free
from services.trainer.engine.report import choices
from services.trainer.engine.report.choices import Choices
from services.trainer.engine.report.usage import assumed_peak


@dataclass(frozen=True)
class Forecast:
    """The plan of a run, whose estimate is told for the fit that was found."""

    planner: Planner
    recipe: Recipe
    linear_head: bool = True
    correction: Correction = PLANNED
    """What was measured on this machine."""

    def estimate(self, fit: Fit) -> Estimate:
        found = self.planner.estimate(self.recipe, fit, linear_head=self.linear_head)
        return found.corrected(seconds=self.correction.seconds, memory=self.correction.memory)

    def message(self, fit: Fit, step: int) -> Estimated:
        """`step`: finished steps."""
        found = self.estimate(fit)
        known = {"tokens_per_second": found.tokens_per_second, "seconds": found.seconds}
        rounded = {name: round(value, 2) for name, value in known.items() if value is not None}
        return Estimated.model_validate(
            {"at": time.time(), "memory_bytes": found.memory_bytes, "step": step, **rounded}
        )

    def document(self, fit: Fit) -> dict[str, JsonValue]:
        """The entry of `hyperparameters.json`."""
        found = self.message(fit, 0)
        value: dict[str, JsonValue] = {"memory_bytes": found.memory_bytes, "seconds": found.seconds}
        speed = "" if found.tokens_per_second is None else f" at {found.tokens_per_second:.0f} tokens/s"
        return {
            "estimate": {
                "value": value,
                "reason": f"{_gib(found.memory_bytes)} GiB at the peak{speed} ({self.correction.reason})",
            }
        }


def planner_of(plan: Plan, facts: BaseFacts, made: Choices, device: Any, processes: int = 1) -> Planner:
    """What is known of a run before its weights are loaded. `processes`: how many train together."""
    return choices.planner(
        plan,
        facts.sizes,
        made,
        device_facts(device),
        epoch_order,
        peak=assumed_peak(device),
        attention=_attention(facts.attention.implementation),
        shares_keys=device.type == "cuda" and shares_keys(facts, device),
        lacks=(facts.attention.reason,),
        processes=processes,
    )


def shares_keys(facts: BaseFacts, device: Any) -> bool:
    """Whether the attention kernel needs no copies of the keys for the queries that share them."""
    config = facts.config.get_text_config()
    heads, head_dim = heads_of(config)
    if facts.attention.implementation != varlen.NAME or not heads:
        return False
    return varlen.shares_keys(device, torch.bfloat16, head_dim, heads // key_heads_of(config))


def computing(planner: Planner, dtype: Any, implementation: str) -> Planner:
    """The same, when it is certain what the base computes in, and with which attention."""
    return replace(as_read(planner, implementation), width=dtype.itemsize)


def as_read(planner: Planner, implementation: str) -> Planner:
    """The same after the weights were loaded, when it is certain how the model attends."""
    return replace(planner, base=replace(planner.base, attention=_attention(implementation)))


def device_facts(device: Any) -> Device:
    """What the device has, and what of it is free for this process."""
    if device.type != "cuda":
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Device(cuda=False, name="CPU", total=total, free=total)
    free, total = torch.cuda.mem_get_info(device)
    capability = torch.cuda.get_device_capability(device)
    return Device(True, torch.cuda.get_device_name(device), total, free, capability, host_free())


def _attention(implementation: str) -> str:
    return "varlen" if implementation == varlen.NAME else implementation


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}"

"""What a run will need: gathers the facts that `domain/recipe.py` and `domain/memory_plan.py` plan with."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import JsonValue

from services.trainer.domain.auto import Chosen
from services.trainer.domain.memory_plan import GIB, Fit, Shape
from services.trainer.domain.plan import Plan
from services.trainer.domain.recipe import Base, Data, Device, Planner, Recipe
from services.trainer.domain.schedule import Steps, validation_steps
from services.trainer.engine.data.batches import epoch_order
from services.trainer.engine.data.dataset import Dataset
from services.trainer.engine.fast import varlen
from services.trainer.engine.messages import Estimated
from services.trainer.engine.model.attention import heads_of
from services.trainer.engine.model.base import BaseFacts
from services.trainer.engine.model.targets import targets_of
from services.trainer.engine.report.usage import assumed_cost
from services.trainer.engine.validation import QUICK_ROWS

MLP = ("up", "gate", "down", "fc", "mlp", "feed_forward", "ffn", "w1", "w2", "w3")
"""What the names of an MLP's layers hold."""


@dataclass(frozen=True)
class Forecast:
    """The plan of a run, whose estimate is told for the fit that was found."""

    planner: Planner
    recipe: Recipe
    linear_head: bool = True

    def message(self, fit: Fit, step: int) -> Estimated:
        """`step`: finished steps."""
        found = self.planner.estimate(self.recipe, fit, linear_head=self.linear_head)
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
        return {"estimate": {"value": value, "reason": f"{_gib(found.memory_bytes)} GiB at the peak{speed}"}}


def planner_of(
    plan: Plan,
    facts: BaseFacts,
    chosen: Chosen,
    train: Dataset,
    validation: Dataset | None,
    device: Any,
    processes: int = 1,
) -> Planner:
    """What is known of a run before its weights are loaded. `processes`: how many train together."""
    targets = targets_of(plan.lora, facts.linears)
    return Planner(
        device_facts(device),
        Base(
            shape=shape_of(facts),
            attention=_attention(facts.attention.implementation),
            shares_keys=device.type == "cuda" and shares_keys(facts, device),
            experts=facts.layers.experts,
            lacks=(facts.attention.reason,),
            cost=assumed_cost(facts, train, device),
        ),
        data_facts(plan, chosen, train, validation),
        adapter=chosen.lora_r.value * sum(facts.linears[name] for name in targets),
        tuned_mlp=any(part in name.rsplit(".", 1)[-1] for name in targets for part in MLP),
        repeats=chosen.beta is None and not chosen.lora_dropout.value,
        switches=plan.switches,
        processes=processes,
    )


def shares_keys(facts: BaseFacts, device: Any) -> bool:
    """Whether the attention kernel needs no copies of the keys for the queries that share them."""
    config = facts.config.get_text_config()
    heads, head_dim = heads_of(config)
    if facts.attention.implementation != varlen.NAME or not heads:
        return False
    keys = getattr(config, "num_key_value_heads", None) or heads
    return varlen.shares_keys(device, torch.bfloat16, head_dim, heads // keys)


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
    return Device(True, torch.cuda.get_device_name(device), total, free, capability)


def shape_of(facts: BaseFacts) -> Shape:
    """The sizes of a base. What a config does not state is taken for that of a Llama."""
    config = facts.config.get_text_config()
    hidden = int(getattr(config, "hidden_size", 0) or 1)
    heads, head_dim = heads_of(config)
    keys = getattr(config, "num_key_value_heads", None) or heads
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    if expert := getattr(config, "moe_intermediate_size", None):
        inner = expert
    if facts.layers.experts:
        inner *= getattr(config, "num_experts_per_tok", None) or 1
    return Shape(
        parameters=facts.parameters,
        matmuls=facts.layers.matmuls,
        layers=int(getattr(config, "num_hidden_layers", 1)),
        hidden=hidden,
        heads=heads or 1,
        attention=heads * head_dim or hidden,
        keys=keys * head_dim or hidden,
        intermediate=int(inner),
        vocabulary=int(getattr(config, "vocab_size", 0) or facts.layers.head // hidden),
    )


def data_facts(plan: Plan, chosen: Chosen, train: Dataset, validation: Dataset | None) -> Data:
    """What all steps read."""
    steps = Steps(len(train.rows), chosen.batch_size.value, chosen.n_epochs.value)
    lengths = [sum(len(sequence) for item in row for sequence in item) for row in train.rows]
    most = 0
    for step in range(steps.total):
        epoch, begin = steps.position(step)
        order = epoch_order(len(train.rows), chosen.seed.value, epoch)
        most = max(most, sum(lengths[row] for row in order[begin : begin + steps.batch_size]))
    validated = 0.0
    if validation is not None:
        quick = validation.tokens * min(1.0, QUICK_ROWS / len(validation.rows))
        more = validation.tokens * steps.epochs if len(validation.rows) > QUICK_ROWS else 0
        validated = len(validation_steps(steps, plan.eval_every)) * quick + more
    return Data(
        tokens=sum(lengths) * steps.epochs,
        longest=max(sum(map(len, item)) for item in train.items),
        most=most,
        steps=steps.total,
        validated=validated,
    )


def _attention(implementation: str) -> str:
    return "varlen" if implementation == varlen.NAME else implementation


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}"

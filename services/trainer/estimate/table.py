"""The hardware table: what bases of usual sizes need with each quantization, and what each GPU makes of them. All of it
comes from the plan that a training makes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from services.trainer.domain.fits import ON_GPU, Fit
from services.trainer.domain.layers import cost_of_token, shape_of
from services.trainer.domain.memory_plan import GIB
from services.trainer.domain.recipe import Base, Data, Device, Planner
from services.trainer.estimate.devices import BFLOAT16_CAPABILITY, gpu, peak_of
from services.trainer.estimate.sizes import sizes_of
from shared.errors import InputError
from shared.events import FrozenModel

SHAPES = Path(__file__).with_name("shapes.json")
METHODS = {"none": "LoRA (bf16)", "fp8": "LoRA (fp8)", "nf4": "QLoRA (nf4)"}
ROW, ROWS_A_STEP, RANK = 512, 16, 16
"""The rows that the table is for: tokens of each, rows of a batch; and the rank of the adapter, on all layers."""
ANSWERED = 0.5
"""The share of these tokens that is trained on."""
TOKENS = 1_000_000
EXPLAINED = (
    f"Planned, not measured: tokens per second, and hours of 1 M tokens, in batches of {ROWS_A_STEP} rows of {ROW} "
    f"tokens, half of them trained on, with an adapter of rank {RANK} on all linear layers. At least: the smallest "
    "micro-batches, activations recomputed; fastest: the largest, activations kept. Only adapters are trained, never "
    "all weights. fp8 needs compute capability 8.9. The efficiencies were measured on an H200: figures of other "
    "generations are less certain."
)
COLUMNS = ("rtx4090", "l4", "l40s", "a100", "h100", "h200")


class OnGpu(FrozenModel):
    """`tokens_per_second`, and hours of a million tokens; None: the GPU does not hold the run."""

    tokens_per_second: float | None
    hours: float | None


class Line(FrozenModel):
    """A base of one size, trained in one way. `least_bytes`: with the smallest micro-batches, activations recomputed;
    `fast_bytes`: with the largest, activations kept."""

    size: str
    like: str
    parameters: int
    quantization: str
    method: str
    least_bytes: int
    fast_bytes: int
    gpus: dict[str, OnGpu]


FAST = next(fit for fit in ON_GPU if not fit.restored)
"""What is called the fastest: restored weights, for twice the memory, are 3.5 % faster than that."""


@dataclass(frozen=True)
class Config:
    """A config of `shapes.json`, as transformers would hold it."""

    values: Mapping[str, Any]

    def get_text_config(self) -> Any:
        return SimpleNamespace(model_type="llama", **self.values)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None


def lines() -> list[Line]:
    """The whole table."""
    shapes = cast(list[dict[str, Any]], json.loads(SHAPES.read_text()))
    return [_line(shape, quantization) for shape in shapes for quantization in METHODS]


def _line(shape: Mapping[str, Any], quantization: str) -> Line:
    def estimated(device: Device, fit: Fit | None = None) -> tuple[int, float | None]:
        planner = _planner(shape, device)
        recipe = planner.plan(quantization, ON_GPU)
        needs = [planner.estimate(recipe, each) for each in ([fit] if fit else ON_GPU)]
        found = next((each for each in needs if each.memory_bytes <= device.free), None)
        return needs[0].memory_bytes, found.tokens_per_second if found else None

    gpus: dict[str, OnGpu] = {}
    for name in COLUMNS:
        device = gpu(name)
        try:
            _, speed = estimated(device)
        except InputError:  # no fp8 there
            speed = None
        gpus[name] = OnGpu(
            tokens_per_second=None if speed is None else round(speed),
            hours=None if speed is None else round(TOKENS / speed / 3600, 4),
        )
    largest = gpu("h200")
    return Line(
        size=shape["name"],
        like=shape["like"],
        parameters=sizes_of(Config(shape)).parameters,
        quantization=quantization,
        method=METHODS[quantization],
        least_bytes=estimated(largest, ON_GPU[-1])[0],
        fast_bytes=estimated(largest, FAST)[0],
        gpus=gpus,
    )


def _planner(shape: Mapping[str, Any], device: Device) -> Planner:
    assert device.capability >= BFLOAT16_CAPABILITY, "nothing is trained there"
    config = Config(shape)
    sizes, tokens = sizes_of(config), TOKENS
    cost = cost_of_token(
        sizes.config,
        sizes.layers,
        squares=float(ROW * tokens),
        tokens=tokens,
        trained_tokens=int(tokens * ANSWERED),
        peak=peak_of(device),
    )
    steps = max(1, tokens // (ROW * ROWS_A_STEP))
    return Planner(
        device,
        Base(shape_of(sizes.config, sizes.parameters, sizes.layers), cost=cost),
        Data(tokens=tokens, longest=ROW, most=ROW * ROWS_A_STEP, steps=steps),
        adapter=RANK * sum(sizes.layers.linears.values()),
    )


def markdown() -> str:
    """The table of `docs/hardware.md`."""
    head = ["base", "method", "at least", "fastest", *COLUMNS]
    rows = [head, ["---"] * len(head)]
    rows += [[each.size, each.method, *memory(each), *(cell(each.gpus[name]) for name in COLUMNS)] for each in lines()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def memory(line: Line) -> tuple[str, str]:
    """In GiB: at least, and for the fastest way."""
    return f"{line.least_bytes / GIB:.1f} GiB", f"{line.fast_bytes / GIB:.0f} GiB"


def cell(found: OnGpu) -> str:
    """`15,400 (0.018 h)`"""
    if found.tokens_per_second is None or found.hours is None:
        return "–"
    return f"{found.tokens_per_second:,.0f} ({found.hours:.2g} h)"

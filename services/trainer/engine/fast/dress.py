"""The loaded model gets its fast pieces: the one place that knows which there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from peft.tuners.lora.layer import LoraLayer

from services.trainer.domain.plan import Switches
from services.trainer.domain.recipe import Recipe
from services.trainer.engine.fast import kernels
from services.trainer.engine.fast.adapters.fused import fuse
from services.trainer.engine.fast.adapters.mlps import Mlps
from services.trainer.engine.fast.float8 import Float8Linear

DIFFERENCE = 0.1
"""How much the hidden states may change by another order of rounding, as a share of their size: 2.5 % on random
weights in bfloat16. What computes something else changes them by far more."""
DIFFERENCE_IN_8_BITS = 0.5
"""The same where products are rounded to 8 bits: another order of rounding before them falls on other numbers."""


@dataclass(frozen=True)
class Pieces:
    """Which pieces: `fused_lora`, `liger`; `float8`: the frozen linear layers, all but the head, get 8 bits."""

    fused_lora: bool = True
    liger: bool = True
    float8: bool = False

    @classmethod
    def of(cls, recipe: Recipe, switches: Switches) -> Pieces:
        eight = recipe.quantization.value == "fp8"
        return cls(recipe.fused_lora.value, switches.liger is not False, eight)


@dataclass(frozen=True)
class Dressed:
    """For each piece, whether the model has it, and why."""

    fused_lora: tuple[bool, str]
    liger: tuple[bool, str]
    kernels: tuple[bool, str]


def dress(model: Any, pieces: Pieces, hidden: Callable[[], Any]) -> Dressed:
    """Change how `model` computes, not what: `hidden` tries it on a few tokens. Only `float8` changes what."""
    layers = _use_liger(model, hidden) if pieces.liger else (False, "switched off")
    if pieces.float8:
        in_8_bits(model)
    trouble = kernels.problem(model.device)
    allowed = DIFFERENCE_IN_8_BITS if pieces.float8 else DIFFERENCE
    fused = _fuse(model, hidden, allowed if trouble is None else None) if pieces.fused_lora else (False, "switched off")
    return Dressed(
        fused,
        layers,
        (trouble is None, trouble or "the losses of the head in one kernel"),
    )


def _fuse(model: Any, hidden: Callable[[], Any], allowed: float | None) -> tuple[bool, str]:
    """`allowed`: see `_tried`; None: there are no kernels for whole MLPs."""
    left = fuse(model)
    said = "each layer and its adapter are one operation"
    if left:
        said = f"all but {len(left)} layers, which are of a kind that PEFT computes itself, such as {left[0]}"
    if allowed is not None and (mlps := Mlps(model)).found:
        is_in, why = _tried(mlps, hidden, allowed)
        said += f"; {'so is' if is_in else 'but not'} each of {len(mlps.found)} gated MLPs ({why})"
    return True, said


class _Changes(Protocol):
    """What may be put into a model."""

    def put_in(self) -> None: ...

    def take_out(self) -> None: ...


def _tried(changes: _Changes, hidden: Callable[[], Any], allowed: float = DIFFERENCE) -> tuple[bool, str]:
    """Put `changes` in, and take them out again if they do not compute what the model did: the hidden states may change
    by the share `allowed`. Returns whether they are in, and what was seen."""
    before = hidden()
    changes.put_in()
    try:
        difference = float((hidden() - before).norm() / before.norm())
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        changes.take_out()
        return False, f"its kernels do not take this base ({type(error).__name__})"
    if not difference <= allowed:
        changes.take_out()
        return False, f"its kernels compute something else for this base (by {difference:.1%})"
    return True, f"the hidden states differ by {difference:.2%}"


def is_gpu(model: Any) -> bool:
    return bool(model.device.type == "cuda")


def _use_liger(model: Any, hidden: Callable[[], Any]) -> tuple[bool, str]:
    base = model.get_base_model()
    if not is_gpu(model):
        return False, "its kernels are for GPUs"
    from services.trainer.engine.fast import liger  # noqa: PLC0415  # it costs most of a second, which only a GPU repays

    layers = liger.Layers(base)
    if not layers.available:
        return False, f"it has no kernels for bases of the type {base.config.model_type}"
    is_in, why = _tried(layers, hidden)
    return is_in, f"norms, positions and gated products in one kernel each; {why}" if is_in else why


def in_8_bits(model: Any) -> None:
    """Let the frozen linear layers of `model` have their weights in 8 bits, all but the head."""
    head = model.get_base_model().get_output_embeddings()
    adapters = {id(part) for layer in model.modules() if isinstance(layer, LoraLayer) for part in _parts(layer)}
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if layer is not head and id(layer) not in adapters and Float8Linear.fits(layer):
                setattr(parent, name, Float8Linear(layer))


def _parts(layer: Any) -> list[Any]:
    return [*layer.lora_A.modules(), *layer.lora_B.modules()]

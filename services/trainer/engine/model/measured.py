"""What is measured of the loaded model, because no list of families would stay right: whether documents in one row see
each other, and whether its head is a plain linear layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from services.trainer.domain.packing import MicroBatch, RowShape
from services.trainer.engine.data.batches import Batch, Packer
from services.trainer.engine.data.tokens import Example
from services.trainer.engine.fast import varlen
from services.trainer.engine.forward import Forward
from services.trainer.engine.model.adapter import set_training

MOST_TOKENS = 64
"""So much of each of two sequences is read."""
ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-3}
HALF_ROUNDING = 0.03
"""How much a token may change when another document comes before its own in the row, as a share of what tokens would
change if they saw that document: in float32, and in 16 bits."""
MOST_SAID = 200
"""Characters of an error that the reason quotes."""
LARGE = 100.0
"""The largest logit that the head is tried with: every base that caps its logits does it here."""


@dataclass(frozen=True)
class Reading:
    """How the model is read: `packed`, with several documents in a row; `linear_head`: see `Forward`. `unsuitable`: why
    it does not attend with the kernel that was chosen for it."""

    packed: bool
    linear_head: bool
    reason: str
    unsuitable: str | None = None


def measure(model: Any, sequences: Sequence[Example], precision: Callable[[], AbstractContextManager[Any]]) -> Reading:
    """Try the model on its device with two of the sequences that it is trained on. `precision`: that of the training.

    Where documents would see each other with the kernel of `varlen`, the model gets `sdpa` and is tried again.
    """
    one, other = (_short(each) for each in (sequences[0], sequences[-1]))
    set_training(model, False)
    with torch.no_grad(), precision():
        linear = _has_linear_head(Forward(model, linear_head=False), _batch(one, packed=False))
        forward = Forward(model, linear_head=linear)
        trouble, unsuitable = _trouble(forward, one, other), None
        if trouble and model.config._attn_implementation == varlen.NAME:
            model.get_base_model().set_attn_implementation("sdpa")
            trouble, unsuitable = _trouble(forward, one, other), trouble
    if trouble:
        return Reading(False, linear, f"one document a row: {trouble}", unsuitable)
    return Reading(True, linear, "several documents a row: measured, they do not see each other", unsuitable)


def hidden_of(model: Any, sequences: Sequence[Example], precision: Callable[[], AbstractContextManager[Any]]) -> Any:
    """What the head is given for a few tokens of the first of the sequences: (tokens, width), float32."""
    set_training(model, False)
    with torch.no_grad(), precision():
        return _hidden(Forward(model, linear_head=False), _batch(_short(sequences[0])))


def _trouble(forward: Forward, one: Example, other: Example) -> str | None:
    """Why a row cannot have several documents; None: it can."""
    config = forward.model.config.get_text_config()
    if not forward.takes_positions:
        return "the base cannot be told where in its document a token is"
    if getattr(config, "attention_chunk_size", None):
        return "the base attends in chunks, which are counted from the beginning of the row"
    try:
        if _depends(forward, one, other):
            return "in this base a document changes the next one in its row"
        alone = _hidden(forward, _batch(other))
        beside = _hidden(forward, _batch(one, other))[-len(alone) :]
        seeing = _hidden(forward, _batch(_joined(one, other)))[-len(alone) :]
        before = _hidden(forward, _batch(other, one))[: len(alone)]
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        return f"the base does not take such rows ({type(error).__name__}: {str(error)[:MOST_SAID]})"
    # No token sees what comes after it, so what a later document changes is the rounding of other products.
    changed, possible, rounded = (float((each - alone).norm(dim=-1).max()) for each in (beside, seeing, before))
    allowed = ROUNDING.get(forward.model.dtype, HALF_ROUNDING)
    if not changed <= allowed * possible + 2 * rounded:
        return "in this base a document changes when it does not begin its row"
    return None


def _depends(forward: Forward, one: Example, other: Example) -> bool:
    """Whether anything of `other` has a gradient by a token of `one`, which comes before it in a row. What is masked
    has none at all, in any precision, so that also the faintest trace is found."""
    embedded: list[Any] = []

    def watch(_module: Any, _arguments: Any, output: Any) -> Any:
        embedded.append(output.detach().requires_grad_())
        return embedded[0]

    hook = forward.model.get_base_model().get_input_embeddings().register_forward_hook(watch)
    try:
        with torch.enable_grad():
            found = _hidden(forward, _batch(one, other))[1 - len(other) :]
            mixed = torch.randn(found.shape, generator=torch.Generator().manual_seed(0)).to(found.device)
            (gradient,) = torch.autograd.grad((found * mixed).sum(), embedded)
    finally:
        hook.remove()
    return bool(gradient[0, : len(one)].any())


def _hidden(forward: Forward, batch: Batch) -> Any:
    return forward.hidden(batch.to(forward.model.device)).float()


def _has_linear_head(forward: Forward, batch: Batch) -> bool:
    """Whether the model's logits are what its output layer alone makes of the hidden states."""
    head = forward.model.get_base_model().get_output_embeddings()
    if type(head) is not torch.nn.Linear or head.weight.requires_grad:
        return False
    on_device = batch.to(forward.model.device)
    hidden = forward.hidden(on_device)

    def ours(hidden: Any) -> Any:
        return F.linear(hidden.to(head.weight.dtype), head.weight, head.bias).float()

    larger = LARGE / ours(hidden).abs().max()  # a cap hardly changes small logits
    own, linear = forward.logits(on_device, lambda hidden: hidden * larger).float(), ours(hidden * larger)
    return own.shape == linear.shape and bool((own - linear).abs().max() <= _unit(head.weight) * LARGE)


def _unit(weight: Any) -> float:
    return 1e-2 if weight.dtype in (torch.bfloat16, torch.float16) else 1e-4


def _short(sequence: Example) -> Example:
    cut = sequence.cut(MOST_TOKENS)
    return Example(cut.tokens, np.ones(len(cut), dtype=np.bool_))


def _joined(one: Example, other: Example) -> Example:
    return Example(np.concatenate([one.tokens, other.tokens]), np.concatenate([one.trained, other.trained]))


def _batch(*sequences: Example, packed: bool = True) -> Batch:
    """One row with these documents, in this order."""
    packer = Packer([(each,) for each in sequences], 0, RowShape(packed=packed))
    numbers = range(len(sequences))
    row = tuple((number, 0) for number in numbers)
    return packer.pack(MicroBatch(tuple(numbers), (row,), sum(map(len, sequences))))

"""Tries the largest micro-batches of a run before its first step, so that memory does not run out at step 40."""

from __future__ import annotations

import numpy as np
import torch

from services.trainer.domain.schedule import micro_batches
from services.trainer.engine import checkpoints
from services.trainer.engine.model.adapter import set_training
from services.trainer.engine.step import Stepper


def dry_run(stepper: Stepper) -> None:
    """Send the worst micro-batches of the run forward and backward, with gradients and the optimizer's state in place.
    Only the fit of the memory may change.

    Raises:
        InputError: `out_of_memory`: not even one row fits.
    """

    def attempt(micro_tokens: int) -> None:
        set_training(stepper.model, True)
        allocate_moments(stepper)
        for micro in worst(stepper, micro_tokens):
            stepper.backward(stepper.collate(micro), weight=1)

    random_before = checkpoints.capture_random()
    stepper.memory.within(attempt)
    stepper.optimizer.zero_grad(set_to_none=True)
    checkpoints.restore_random(random_before)


def allocate_moments(stepper: Stepper) -> None:
    """Let the optimizer make its state, which it otherwise does in the first step, and the gradients beside it; the
    state is that of a fresh optimizer."""
    optimizer = stepper.optimizer
    for parameter in stepper.parameters:
        parameter.grad = torch.zeros_like(parameter)
    if optimizer.state:
        return
    stepper.update(rate=0.0)  # with a gradient of zero nothing moves, and the moments stay zero
    for state in optimizer.state.values():
        state["step"].zero_()


def worst(stepper: Stepper, micro_tokens: int) -> list[list[int]]:
    """The micro-batch of the run with the most padded tokens, and the one with the most logits, which are computed at
    each position whose next token is trained on in any of its sequences. They may be the same."""
    items = stepper.train.items
    lengths = stepper.train.lengths
    most: dict[str, tuple[int, list[int]]] = {"tokens": (-1, []), "logits": (-1, [])}
    for step in range(stepper.steps.total):
        for micro in micro_batches(stepper.items(step), lengths, micro_tokens):
            sequences = [sequence for index in micro for sequence in items[index]]
            kept = np.zeros(max(map(len, sequences)), dtype=np.bool_)
            for sequence in sequences:
                kept[1 : len(sequence)] |= sequence.trained[1:]
            for what, each in (("tokens", len(kept)), ("logits", int(kept.sum()))):
                if each * len(sequences) > most[what][0]:
                    most[what] = (each * len(sequences), micro)
    tokens, logits = most["tokens"][1], most["logits"][1]
    return [tokens] if tokens == logits else [tokens, logits]

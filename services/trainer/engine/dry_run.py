"""Tries the largest micro-batches of a run before its first step, so that memory does not run out at step 40."""

from __future__ import annotations

import torch

from services.trainer.domain.packing import MicroBatch, shares
from services.trainer.engine import checkpoints
from services.trainer.engine.model.adapter import set_training
from services.trainer.engine.model.update import update
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

        def go_through(micro: MicroBatch) -> bool:
            stepper.backward(stepper.packer.pack(micro), weight=1)
            return True

        stepper.memory.each(worst(stepper, micro_tokens), go_through, returns=True)

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
    update(stepper.optimizer, rate=0.0)  # with a gradient of zero nothing moves, and the moments stay zero
    for state in optimizer.state.values():
        state["step"].zero_()


def worst(stepper: Stepper, micro_tokens: int) -> list[MicroBatch]:
    """The micro-batch of the run with the most computed tokens, and the one with the most predicted positions, in
    whichever process of the group. They may be the same."""
    predicted = [sum(sequence.trained_tokens for sequence in item) for item in stepper.train.items]
    lengths = [sum(map(len, item)) for item in stepper.train.items]
    shape = stepper.packer.shape
    one_row, multiple = shape.packed and shape.at_least >= micro_tokens, shape.multiple
    tokens = logits = None
    most_tokens = most_logits = -1
    for step in range(stepper.steps.total):
        items = stepper.items(step)
        size, weight = sum(lengths[item] for item in items), sum(predicted[item] for item in items)
        if (
            one_row
            and size <= micro_tokens
            and -(-size // multiple) * multiple <= most_tokens
            and weight <= most_logits
        ):
            continue  # in one row it would be no worse; planning all steps of a large dataset takes seconds
        for share in shares(items, stepper.packer.lengths, stepper.group.size):
            for micro in stepper.packer.plan(share, micro_tokens):
                kept = sum(predicted[item] for item in micro.items)
                if micro.tokens > most_tokens:
                    most_tokens, tokens = micro.tokens, micro
                if kept > most_logits:
                    most_logits, logits = kept, micro
    assert tokens is not None and logits is not None
    return [tokens] if tokens == logits else [tokens, logits]

"""The loss of each predicted token, without ever holding the logits of all: a frozen head, chunk by chunk."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from services.trainer.engine.fast import kernels

CHUNK = {"cuda": 4096, "cpu": 1024}
"""So many positions get their logits at a time. Smaller chunks are slower on a GPU; larger ones need memory only."""


NO_TARGET = -100
"""Instead of a target where a batch is filled up: it has no loss, and counts as nothing."""


class TokenLosses(NamedTuple):
    """Of each predicted token, (kept,): its cross-entropy, and whether greedy decoding would have chosen it."""

    loss: Any
    correct: Any


def token_losses(hidden: Any, head: Any, targets: Any, chunk: int | None = None) -> TokenLosses:
    """The losses of `targets`, (kept,), some of which may be `NO_TARGET`, after the linear layer `head`, which is
    frozen. `hidden`: (kept, width)."""
    if chunk is None:
        chunk = CHUNK.get(hidden.device.type, CHUNK["cpu"])
    loss, correct = _FrozenHead.apply(hidden, head.weight, head.bias, targets, chunk)
    return TokenLosses(loss, correct)


def plain_losses(logits: Any, targets: Any) -> TokenLosses:
    """The same of given logits, (kept, vocabulary): what the fused one is compared with, and what is used for heads
    that do more than a linear product."""
    loss = F.cross_entropy(
        logits if logits.dtype == torch.float64 else logits.float(), targets, reduction="none", ignore_index=NO_TARGET
    )
    return TokenLosses(loss, logits.detach().argmax(-1) == targets)


class _FrozenHead(torch.autograd.Function):  # type: ignore[misc]
    """Because positions do not depend on each other here, the gradient of each loss by its own hidden state is all that
    the backward pass needs, whatever is made of the losses: it is computed while the logits of the chunk are there."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, bias: Any, targets: Any, chunk: int) -> tuple[Any, Any]:
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        loss = torch.empty(len(targets), dtype=wide, device=hidden.device)
        correct = torch.empty(len(targets), dtype=torch.bool, device=hidden.device)
        slopes = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        with torch.autocast(hidden.device.type, enabled=False):
            for begin in range(0, len(targets), chunk):
                part = slice(begin, begin + chunk)
                real = targets[part, None] != NO_TARGET
                wanted = targets[part, None].clamp(min=0)
                scores = F.linear(hidden[part].to(weight.dtype), weight, bias)
                if kernels.available(scores):
                    loss[part], correct[part] = kernels.losses_(scores, targets[part], slopes=slopes is not None)
                    if slopes is not None:
                        slopes[part] = scores @ weight
                    del scores  # before the next ones are made
                    continue
                scores = scores.to(wide)
                top, chosen = scores.max(-1, keepdim=True)
                of_target = scores.gather(-1, wanted) - top
                likelihoods = scores.sub_(top).exp_()  # in place: `scores` is gone from here on
                total = likelihoods.sum(-1, keepdim=True)
                loss[part] = ((total.log() - of_target) * real).squeeze(-1)
                correct[part] = ((chosen == wanted) & real).squeeze(-1)
                if slopes is not None:
                    likelihoods.mul_(real / total)
                    likelihoods.scatter_add_(-1, wanted, -real.to(wide))
                    slopes[part] = likelihoods.to(weight.dtype) @ weight
        ctx.mark_non_differentiable(correct)
        if slopes is not None:
            ctx.save_for_backward(slopes)
        return loss, correct

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        (slopes,) = ctx.saved_tensors
        # multiplied in float32, and rounded while it is written
        return torch.mul(slopes, gradients[0][:, None], out=torch.empty_like(slopes)), None, None, None, None

"""Attention of packed rows by FlashAttention 4, where the package `flash-attn-4` is installed. Forward and backward it
takes 0.6 of the time of torch's kernel on an H100, with heads of 128; it is compiled in the process, in 10 s."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch

from services.trainer.engine.fast import varlen


class Attentions:
    """Those of a model whose attention is `varlen`'s; they can have torch's kernel again."""

    def __init__(self, model: Any) -> None:
        self.found = [module for module in model.modules() if type(module).__name__.endswith("Attention")]

    def put_in(self) -> None:
        for module in self.found:
            setattr(module, varlen.KERNEL, kernel)

    def take_out(self) -> None:
        for module in self.found:
            delattr(module, varlen.KERNEL)


def kernel(query: Any, key: Any, value: Any, begins: Any, longest: int, *, scale: float, window: int | None) -> Any:
    """What `varlen.kernel` computes. Sliding windows are left to that."""
    if window is not None:
        return varlen.kernel(query, key, value, begins, longest, scale=scale, window=window)
    found = _function()(
        query, key, value, cu_seqlens_q=begins, cu_seqlens_k=begins, max_seqlen_q=longest, max_seqlen_k=longest,
        softmax_scale=scale, causal=True,
    )  # fmt: skip
    return found[0] if isinstance(found, tuple) else found


@cache
def problem(device: Any, head_dim: int, groups: int) -> str | None:
    """Why the package does not compute attention here; None: it does, as was tried forward and backward."""
    try:
        if find_spec("flash_attn") is None or find_spec("flash_attn.cute") is None:
            return "the package flash-attn-4 is not installed"
        if not varlen.agrees(kernel, device, torch.bfloat16, head_dim, groups):
            return "it computes something else here"
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # of its compiler, which has classes of its own
        return f"it does not run here ({type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]})"
    return None


@cache
def _function() -> Any:
    from flash_attn.cute import flash_attn_varlen_func  # noqa: PLC0415 - it takes seconds, and is not always there

    return flash_attn_varlen_func

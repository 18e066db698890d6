"""Which implementation computes the attention of a base as its authors meant it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.trainer.engine.fast import varlen


@dataclass(frozen=True)
class AttentionChoice:
    """A value of transformers' `attn_implementation` (`sdpa`, `eager`, or ours of `varlen`), and why it was chosen."""

    implementation: str
    reason: str


SHORT = 256
"""Tokens. In bfloat16 on a CPU, plain matrix products are faster than sdpa's kernel in rows up to this length: measured
with AVX512-BF16, forward and backward, 11 ms instead of 48 for rows of 110 tokens, 24 instead of 26 for rows of 256."""


def for_short_rows(chosen: AttentionChoice, longest: int, *, bfloat16_on_cpu: bool) -> AttentionChoice:
    """What suits rows of at most `longest` tokens better than what was `chosen` for the base."""
    if not bfloat16_on_cpu or chosen.implementation != "sdpa" or longest > SHORT:
        return chosen
    reason = f"in bfloat16 on a CPU, the fastest for rows of at most {SHORT} tokens; the longest here has {longest}"
    return AttentionChoice("eager", reason)


def choose_attention(skeleton: Any, *, kernel: bool = False) -> AttentionChoice:
    """Choose for a model without weights. `kernel`: the device and this torch have the one of `varlen`.

    `sdpa` honours sliding windows, which are part of the mask, but silently ignores caps and sinks, as the kernel does.
    """
    if any(getattr(module, "attn_logit_softcapping", None) for module in skeleton.modules()):
        return AttentionChoice("eager", "the base caps its attention logits, which sdpa ignores")
    if any(name.rsplit(".", 1)[-1] == "sinks" for name, _ in skeleton.named_parameters()):
        return AttentionChoice("eager", "the base has attention sinks, which sdpa ignores")
    if not getattr(skeleton, "_supports_sdpa", True):
        return AttentionChoice("eager", f"transformers has no other implementation for {type(skeleton).__name__}")
    sdpa = "the fastest that computes what the base's config asks for"
    if not kernel:
        return AttentionChoice("sdpa", sdpa)
    if any(getattr(module, "attention_dropout", 0.0) for module in skeleton.modules()):
        return AttentionChoice("sdpa", f"{sdpa}: it drops attention out")
    heads = [size for module in skeleton.modules() if isinstance(size := getattr(module, "head_dim", None), int)]
    if any(size > varlen.WIDEST_HEAD or size % 8 for size in heads):
        return AttentionChoice("sdpa", f"{sdpa}: its heads do not suit the kernel for packed rows")
    return AttentionChoice(varlen.NAME, "torch's kernel for packed rows, which computes no pairs across documents")

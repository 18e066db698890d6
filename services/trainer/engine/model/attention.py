"""Which of transformers' implementations computes the attention of a base as its authors meant it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class AttentionChoice:
    """A value of transformers' `attn_implementation`, and why it was chosen."""

    implementation: Literal["sdpa", "eager"]
    reason: str


def choose_attention(skeleton: Any) -> AttentionChoice:
    """Choose for a model without weights.

    `sdpa` honours sliding windows, which are part of the mask, but silently ignores caps and sinks.
    """
    if any(getattr(module, "attn_logit_softcapping", None) for module in skeleton.modules()):
        return AttentionChoice("eager", "the base caps its attention logits, which sdpa ignores")
    if any(name.rsplit(".", 1)[-1] == "sinks" for name, _ in skeleton.named_parameters()):
        return AttentionChoice("eager", "the base has attention sinks, which sdpa ignores")
    if not getattr(skeleton, "_supports_sdpa", True):
        return AttentionChoice("eager", f"transformers has no other implementation for {type(skeleton).__name__}")
    return AttentionChoice("sdpa", "the fastest that computes what the base's config asks for")

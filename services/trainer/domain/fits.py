"""How a run may fit into the memory of its device: the ways that are tried, the fastest first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

Part = Literal["attention", "half", "all"]
"""What is recomputed: the attention of each layer, every second layer, or all layers."""
AGAIN: Mapping[Part, float] = {"attention": 0.2, "half": 0.5, "all": 1.0}
"""The share of the forward pass that this is. Of a Llama's products, attention has a fifth."""


class Fit(BaseModel):
    """`micro_tokens`: computed tokens per micro-batch, padding among them (0: one sequence or pair at a time).
    `recompute`: gradient checkpointing, of this `part`. `restored`: weights in 4 bits also stay in memory as they are
    multiplied, instead of being restored for each product."""

    model_config = ConfigDict(frozen=True)

    micro_tokens: int
    recompute: bool
    part: Part = "all"
    restored: bool = False

    @property
    def again(self) -> float:
        """The share of the forward pass that is computed twice."""
        return AGAIN[self.part] if self.recompute else 0.0

    @property
    def recomputed(self) -> str:
        """What is recomputed, in a word."""
        return self.part if self.recompute else "none"


ON_CPU = (Fit(micro_tokens=1024, recompute=False),)  # larger micro-batches are not faster here
LEAN_ON_GPU = (
    # So that the steps of a usual batch, of 6,000 to 10,000 tokens, are one micro-batch: each dequantizes all 4-bit
    # weights once more.
    Fit(micro_tokens=12288, recompute=True),
    Fit(micro_tokens=5120, recompute=True),
    Fit(micro_tokens=2048, recompute=True),
    Fit(micro_tokens=0, recompute=True),
)
LEAN_ON_CPU = (Fit(micro_tokens=1024, recompute=True),)
ON_GPU = (
    # Fastest first. Keeping activations beats large micro-batches down to about 4k tokens; below, dequantizing all
    # 4-bit weights once per micro-batch costs more than recomputing. Attention has a seventh of what a layer keeps,
    # more where it sees a matrix of all pairs of tokens. Restoring 4-bit weights is 3.5 % of a step (8B, one H100).
    Fit(micro_tokens=16384, recompute=False, restored=True),
    Fit(micro_tokens=16384, recompute=False),
    Fit(micro_tokens=8192, recompute=False),
    Fit(micro_tokens=4096, recompute=False),
    Fit(micro_tokens=4096, recompute=True, part="attention"),
    Fit(micro_tokens=4096, recompute=True, part="half"),
    Fit(micro_tokens=8192, recompute=True),
    Fit(micro_tokens=4096, recompute=True),
    Fit(micro_tokens=2048, recompute=True),
    Fit(micro_tokens=0, recompute=True),
)

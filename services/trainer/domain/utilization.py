"""Model FLOPs utilization (MFU): the share of a GPU's peak that the arithmetic of a training reaches."""

from __future__ import annotations

from dataclasses import dataclass

PEAKS = (
    # the more exact name first; NVIDIA's and AMD's data sheets, without sparsity
    ("B200", 2250.0),
    ("B100", 1750.0),
    ("GH200", 989.0),
    ("H200 NVL", 835.0),
    ("H200", 989.0),
    ("H100 NVL", 835.0),
    ("H100 PCIe", 756.0),
    ("H100", 989.0),
    ("H800", 989.0),
    ("H20", 148.0),
    ("A100", 312.0),
    ("A800", 312.0),
    ("A40", 149.7),
    ("A30", 165.0),
    ("L40S", 362.0),
    ("L40", 181.0),
    ("L4", 121.0),
    ("RTX 6000 Ada", 364.2),
    ("RTX A6000", 154.8),
    ("RTX 5090", 209.5),
    ("RTX 4090", 165.2),
    ("RTX 3090", 71.0),
    ("MI300X", 1307.4),
)
"""A name of a GPU and its dense bfloat16 TFLOP/s, with sums in float32. A GPU that is not here has no MFU."""

OTHER_PEAK = {"Laptop", "MIG", "D", "Max"}
"""Words in the names of GPUs that reach less than those that are called so otherwise: a part of one, or one with less
power."""


def peak_flops(device: str) -> float | None:
    """The dense bfloat16 FLOP/s of the GPU that its driver calls `device`; None: it is not known, or is no GPU."""
    words = device.replace("-", " ").split()
    if OTHER_PEAK & set(words):
        return None
    for name, tflops in PEAKS:
        wanted = name.split()
        if any(words[at : at + len(wanted)] == wanted for at in range(len(words))):
            return tflops * 1e12
    return None


@dataclass(frozen=True)
class Cost:
    """What one token costs.

    `matmuls`: the frozen parameters that it is multiplied with, forward. `attention`: the FLOPs of its forward pass
    through the attention of all layers, which grow with the square of a sequence. `peak`: FLOP/s of the GPU.
    """

    matmuls: float
    attention: float
    peak: float

    def flops(self, *, recompute: float) -> float:
        """The FLOPs of a token, forward and backward. A frozen matrix has no gradient of its own: two FLOPs forward and
        two backward per parameter, and two more where the forward pass is done again: `recompute`, as a share of it.
        Attention costs twice as much backward as forward. The adapter's own products are left out: about one percent.
        """
        return (4 + 2 * recompute) * self.matmuls + (3 + recompute) * self.attention

    def mfu(self, tokens_per_second: float, *, recompute: float) -> float:
        """The share of the peak at this speed; with a base in 8 bits it may be above 1."""
        return tokens_per_second * self.flops(recompute=recompute) / self.peak


def attention_flops(squares: float, tokens: int, layers: int, width: int) -> float:
    """The FLOPs of causal attention per token, forward: two products of `width` (heads times their size) per layer,
    with half of all pairs of tokens. `squares`: the sum of the squared lengths of the sequences that have `tokens`."""
    return 2.0 * width * layers * squares / tokens if tokens else 0.0

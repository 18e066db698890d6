"""How much memory and time a training needs, before it begins: from the sizes of its base, its adapter and its batches.

The figures are those of a Llama-like decoder: attention and a gated MLP in every layer. Others are compared with it by
their widths. The constants were set by peaks that were measured on an H200; see the table of `test_memory_plan.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from services.trainer.domain.utilization import Cost

GIB = 2**30

WEIGHT_BYTES: Mapping[str, float] = {"nf4": 0.516, "fp8": 2.0, "none": 2.0}
"""Of a weight of a linear layer on a GPU. nf4: half a byte, a scale of one byte for 64 weights, and the scales of
these. fp8: one byte, twice, because forward and backward want different layouts. All other weights have two bytes."""
OPTIMIZER_BYTES = 16
"""Of a parameter of the adapter: weight, gradient and two moments, in float32."""
KEPT = 2
"""Bytes of a kept activation, in bfloat16 on a GPU."""
NORM = 4
"""Bytes of what a norm that is not fused keeps of its input, in float32."""
PLAIN_EXTRA = 1.4
"""What PEFT's own layers keep in fact, as a multiple of what the formula says. Measured: 1.7 for 8 G parameters, 1.1
for 135 M; not explained yet."""
HEAD_CHUNK, HEAD_BYTES, PLAIN_HEAD_BYTES = 4096, 6, 16
"""So many positions get their logits at a time (`engine/fast/head.py`), in so many bytes for each logit; and the bytes
where the base's own head is used, for all positions at once."""
MASK_BYTES, EAGER_BYTES = 2, 8
"""Of a pair of tokens of a row: in the mask; and in scores and weights of eager attention, for each layer and head."""
FLOAT32_SCALE, PROCESS_BYTES = 2, int(1.05 * GIB)
"""On a CPU numbers are in float32, so twice as large; and all memory of the process counts, also torch's own."""

EFFICIENCY: Mapping[tuple[str, bool], float] = {
    # (quantization, fused LoRA)
    ("nf4", False): 0.16,
    ("none", False): 0.19,
    ("nf4", True): 0.47,
    ("none", True): 0.485,
    ("fp8", True): 0.63,
}
"""The share of a GPU's dense bfloat16 peak that steps reach where the arithmetic takes the time."""
LAUNCH_SECONDS = 8e-3
"""How long the process takes to launch the kernels of one layer, forward and backward. A micro-batch through a small
base takes as long as its launches."""
GRAPH_LAUNCH = 0.3
"""The share of these that CUDA graphs leave."""
CPU_FLOPS, CPU_CALL_SECONDS = 7e10, 1e-2
"""FLOP/s of two free cores, in steps of a small base; and what calling the operations of a layer takes at least."""
UNKNOWN_PEAK = 100e12
"""FLOP/s of a GPU that `utilization.PEAKS` does not know."""
FORWARD_SHARE = 0.5
"""How long a token is validated, as a share of how long it is trained on."""


class Fit(BaseModel):
    """`micro_tokens`: computed tokens per micro-batch, padding among them (0: one sequence or pair at a time).
    `recompute`: gradient checkpointing."""

    model_config = ConfigDict(frozen=True)

    micro_tokens: int
    recompute: bool


ON_CPU = (Fit(micro_tokens=1024, recompute=False),)  # larger micro-batches are not faster here
LEAN_ON_CPU = (Fit(micro_tokens=1024, recompute=True),)
ON_GPU = (
    # Fastest first. Keeping activations beats large micro-batches down to about 4k tokens; below, dequantizing all
    # 4-bit weights once per micro-batch costs more than recomputing.
    Fit(micro_tokens=16384, recompute=False),
    Fit(micro_tokens=8192, recompute=False),
    Fit(micro_tokens=4096, recompute=False),
    Fit(micro_tokens=8192, recompute=True),
    Fit(micro_tokens=4096, recompute=True),
    Fit(micro_tokens=2048, recompute=True),
    Fit(micro_tokens=0, recompute=True),
)


@dataclass(frozen=True)
class Shape:
    """The sizes of a base.

    `matmuls`: the weights of the linear layers of its text decoder, which are the ones that are quantized, without its
    head. `attention`, `keys`: the width of all heads of queries, and of keys. `intermediate`: the width of the MLP;
    with experts, of those that one token meets.
    """

    parameters: int
    matmuls: int
    layers: int
    hidden: int
    heads: int
    attention: int
    keys: int
    intermediate: int
    vocabulary: int


@dataclass(frozen=True)
class Way:
    """How a run computes. `attention`: `varlen`, `sdpa` or `eager`; the latter two know a matrix of all pairs of tokens
    of a row. `shares_keys`: its attention takes fewer heads of keys than of queries without copying them. `tuned_mlp`:
    the MLP has an adapter, too."""

    quantization: str
    cuda: bool = True
    fused: bool = False
    graphs: bool = False
    attention: str = "varlen"
    shares_keys: bool = True
    linear_head: bool = True
    tuned_mlp: bool = True


@dataclass(frozen=True)
class Load:
    """A micro-batch: its computed `tokens`, in rows of at most `row` tokens."""

    tokens: int
    row: int


@dataclass(frozen=True)
class Need:
    """Bytes at the peak of a step: `weights` of the base, the `adapter` with its optimizer, `kept` activations, and
    what is needed only for a moment (`passing`)."""

    weights: int
    adapter: int
    kept: int
    passing: int
    process: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.adapter + self.kept + self.passing + self.process


@dataclass(frozen=True)
class Amount:
    """What a run computes in all: `tokens` that are trained on or read on the way, without padding; `validated` ones;
    and in how many micro-batches."""

    tokens: int
    validated: float
    micro_batches: int


def need(shape: Shape, adapter_parameters: int, load: Load, way: Way, *, recompute: bool) -> Need:
    """The memory of a training at its peak.

    Kept: what each layer saves for its backward pass; with recomputation only its input. Passing: the logits of a
    chunk, or the gradients of what one layer has saved, whichever is larger, because they come one after the other.
    With recomputation that layer also has to save what it had not kept. Besides, an nf4 matrix in 16 bits, and the mask
    of sdpa.
    """
    scale = 1 if way.cuda else FLOAT32_SCALE
    saved = layer_bytes(shape, way, load) * load.tokens * scale
    kept = KEPT * shape.hidden * load.tokens * scale if recompute else saved
    chunk = min(load.tokens, HEAD_CHUNK) if way.linear_head else load.tokens
    logits = chunk * shape.vocabulary * (HEAD_BYTES if way.linear_head else PLAIN_HEAD_BYTES)
    matrix = KEPT * shape.hidden * shape.intermediate * scale if way.quantization == "nf4" else 0
    mask = 0 if way.attention == "varlen" else MASK_BYTES * load.tokens * load.row * scale
    return Need(
        weights=weights(shape, way),
        adapter=adapter_parameters * OPTIMIZER_BYTES,
        kept=int(shape.layers * kept),
        passing=int(max(logits, 2 * saved if recompute else saved) + matrix + mask),
        process=0 if way.cuda else PROCESS_BYTES,
    )


def weights(shape: Shape, way: Way) -> int:
    """Bytes of the base. Only linear layers of the decoder are quantized: no embeddings, head, towers or experts."""
    scale = 1 if way.cuda or way.quantization == "nf4" else FLOAT32_SCALE
    others = (shape.parameters - shape.matmuls) * 2 * (1 if way.cuda else FLOAT32_SCALE)
    return int(shape.matmuls * WEIGHT_BYTES[way.quantization] * scale + others)


def layer_bytes(shape: Shape, way: Way, load: Load) -> float:
    """What one layer saves of a token for its backward pass.

    With H the width of the model, Q and K those of queries and keys, and I that of the MLP, a Llama layer saves

    - the inputs of both norms: 2 H, in float32 unless they are fused;
    - the inputs of the adapter's products: H for q, k and v, H for gate and up, I for down; the one for o is the
      attention's output. PEFT's layers over weights that are not quantized keep a copy for each product: 5 H, Q and I;
    - what attention needs: Q + 2 K, or 3 Q where keys are copied for their queries, and its output Q;
    - gate and up: 2 I, and without fused layers also the activated gate: I.
    """
    hidden, queries, inner = shape.hidden, shape.attention, shape.intermediate
    keys = shape.keys if way.shares_keys and way.attention == "varlen" else queries
    copies = not way.fused and way.quantization == "none"
    inputs = 5 * hidden + queries if copies else 2 * hidden
    inputs += inner if way.tuned_mlp else 0
    attention = queries + 2 * keys + queries
    mlp = 2 * inner if way.fused else 3 * inner
    found = KEPT * (inputs + attention + mlp) + (KEPT if way.fused else NORM) * 2 * hidden
    if way.attention == "eager":
        found += EAGER_BYTES * shape.heads * load.row
    return float(found) if way.fused or not way.cuda else found * PLAIN_EXTRA


def begin(needs: Sequence[Need], free: int, optimism: float = 1.25) -> int:
    """Which of `needs`, the fastest first, to try first in `free` bytes: the first that may fit, if the estimate is too
    high by the factor `optimism`; else the last."""
    return next((at for at, each in enumerate(needs) if each.total <= free * optimism), len(needs) - 1)


def tokens_per_second(cost: Cost, shape: Shape, way: Way, tokens: float, *, recompute: bool) -> float:
    """The speed at micro-batches of so many `tokens`. `cost`: of a token; its peak is that of the device."""
    return tokens / max(_arithmetic(cost, way, tokens, recompute), _launches(shape, way, recompute))


def launch_bound(cost: Cost, shape: Shape, way: Way, tokens: float, *, recompute: bool) -> bool:
    """Whether launching the kernels of a micro-batch takes longer than computing them."""
    return _launches(shape, way, recompute) > _arithmetic(cost, way, tokens, recompute)


def seconds(cost: Cost, shape: Shape, way: Way, amount: Amount, *, recompute: bool) -> float:
    """How long all steps take, with the validations between them."""
    if not amount.tokens:
        return 0.0
    each = amount.tokens / max(1, amount.micro_batches)
    speed = tokens_per_second(cost, shape, way, each, recompute=recompute)
    return (amount.tokens + FORWARD_SHARE * amount.validated) / speed


def estimate_in_words(memory_bytes: int, tokens_per_second: float | None, seconds: float | None) -> str:
    memory = f"estimated {memory_bytes / GIB:.1f} GiB of memory"
    if seconds is None or tokens_per_second is None:
        return memory
    return f"{memory}, {seconds:.0f} s at {tokens_per_second:.0f} tokens/s"


def shortage_in_words(step: int, micro_tokens: int, *, recompute: bool) -> str:
    """Memory ran out at a step."""
    size = f"micro-batches of {micro_tokens} tokens" if micro_tokens else "one row at a time"
    how = "recomputed" if recompute else "kept"
    return f"memory ran out at step {step}: done again with {size}, activations {how}"


def _arithmetic(cost: Cost, way: Way, tokens: float, recompute: bool) -> float:
    share = EFFICIENCY.get((way.quantization, way.fused), EFFICIENCY["nf4", False])
    return tokens * cost.flops(recompute=recompute) / (cost.peak * (share if way.cuda else 1.0))


def _launches(shape: Shape, way: Way, recompute: bool) -> float:
    if not way.cuda:
        return shape.layers * CPU_CALL_SECONDS
    return shape.layers * LAUNCH_SECONDS * (1.3 if recompute else 1.0) * (GRAPH_LAUNCH if way.graphs else 1.0)

"""How much memory and time a training needs, before it begins: from the sizes of its base, its adapter and its batches.

The figures are those of a Llama-like decoder: attention and a gated MLP in every layer. Others are compared with it by
their widths. The constants were set by peaks that were measured on an H200; see the table of `test_memory_plan.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.trainer.domain.fits import Part
from services.trainer.domain.utilization import Cost

GIB = 2**30

WEIGHT_BYTES: Mapping[str, float] = {"nf4": 0.516, "fp8": 2.0, "none": 2.0}
"""Of a weight of a linear layer; `none`: in 16 bits. nf4: half a byte, a scale of one byte for 64 weights, and scales
of these. fp8: one byte, twice, because forward and backward want different layouts. All others are like `none`."""
OPTIMIZER_BYTES = 16
"""Of a parameter of the adapter: weight, gradient and two moments, in float32."""
NORM = 4
"""Bytes of what a norm that is not one kernel keeps of its input, in float32."""
PLAIN_EXTRA = 1.4
"""What PEFT's own layers keep in fact, as a multiple of what the formula says. Measured: 1.7 for 8 G parameters, 1.1
for 135 M; not explained yet."""
HEAD_CHUNK, HEAD_BYTES, PLAIN_HEAD_BYTES = 4096, 6, 16
"""So many positions get their logits at a time (`engine/fast/head.py`), in so many bytes for each logit; and the bytes
where the base's own head is used, for all positions at once."""
PIECE = 6144
"""Tokens that a recomputed MLP computes at a time, at most, where it goes backward by itself
(`engine/fast/adapters/gated_mlp.py`)."""
KERNEL_HEAD_BYTES = 2
"""Bytes of a logit where one kernel makes losses and gradients of logits in 16 bits, in place."""
EAGER_BYTES = 8
"""Of a pair of tokens of a row, in scores and weights of eager attention, for each layer and head."""
PROCESS_BYTES = int(1.05 * GIB)
"""On a CPU all memory of the process counts, also that of torch and of what was freed."""

EFFICIENCY: Mapping[tuple[str, bool], float] = {
    # (quantization, fused LoRA)
    ("nf4", False): 0.16,
    ("none", False): 0.19,
    ("nf4", True): 0.49,
    ("none", True): 0.485,
    ("fp8", True): 0.69,
}
"""The share of a GPU's dense bfloat16 peak that steps reach where the arithmetic takes the time."""
RECOMPUTED_EFFICIENCY = 0.8
"""What is left of it where all layers are recomputed: 14 s were measured where 11 s had been planned (8B, nf4). Where
MLPs go backward by themselves, all is left: they do not compute their last layer again (11.6 s, planned 12.3)."""
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
    """How a run computes. `attention`: `varlen`, `sdpa` or `eager`; the latter two know a matrix of all pairs of
    tokens of a row. `shares_keys`: its attention takes fewer heads of keys than of queries without copying them.
    `tuned_mlp`: the MLP has an adapter, too. `whole_mlp`: the MLP is one operation with its adapters. `shards`:
    among so many processes the layers of the base are divided. `width`: bytes of a number that is computed with, 2
    or 4. `offload`: the inputs of recomputed layers wait in the host's memory."""

    quantization: str
    cuda: bool = True
    fused: bool = False
    graphs: bool = False
    attention: str = "varlen"
    shares_keys: bool = True
    linear_head: bool = True
    tuned_mlp: bool = True
    whole_mlp: bool = False
    shards: int = 1
    width: int = 2
    offload: bool = False


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


def need(
    shape: Shape,
    adapter_parameters: int,
    load: Load,
    way: Way,
    *,
    recompute: bool,
    part: Part = "all",
    restored: bool = False,
) -> Need:
    """The memory of a training at its peak. `recompute`, `part`, `restored`: as in `Fit`.

    Kept: what each layer saves for its backward pass; with recomputation only its input, or all but what its attention
    saves; where the host has these inputs, only those of the layer that is computed and of the one that is next.
    Passing: the logits of a chunk, or the gradients of what one layer has saved, whichever is larger, because
    they come one after the other. With recomputation that layer also has to save what it had not kept. An MLP that goes
    backward by itself is such a layer of its own. Besides, an nf4 matrix that is not quantized for a moment, and the
    mask of sdpa.
    """
    saved = layer_bytes(shape, way, load) * load.tokens
    kept, again, pieces = shape.layers * saved, 0.0, 0
    if recompute and part == "attention":
        again = attention_bytes(shape, way, load) * load.tokens
        kept -= shape.layers * again
    elif recompute:
        layers = shape.layers if part == "all" else (shape.layers + 1) // 2
        kept -= layers * saved
        kept += (min(2, layers) if part == "all" and way.offload else layers) * input_bytes(shape, way, load)
        if part == "all" and _mlps_by_themselves(way):
            saved -= way.width * (shape.hidden + 2 * shape.intermediate) * load.tokens
            pieces = pieces_bytes(shape, way, load)
        again = saved
    restored = restored and way.quantization == "nf4" and way.fused and way.shards == 1
    matrix = way.width * shape.hidden * shape.intermediate if way.quantization == "nf4" and not restored else 0
    mask = 0 if way.attention == "varlen" else way.width * load.tokens * load.row
    return Need(
        weights=weights(shape, way) + (way.width * shape.matmuls if restored else 0),
        adapter=adapter_parameters * OPTIMIZER_BYTES,
        kept=int(kept),
        passing=int(max(head_bytes(shape, way, load), saved + again, pieces) + matrix + mask),
        process=0 if way.cuda else PROCESS_BYTES,
    )


def input_bytes(shape: Shape, way: Way, load: Load) -> int:
    """What a layer is given."""
    return way.width * shape.hidden * load.tokens


def pieces_bytes(shape: Shape, way: Way, load: Load) -> int:
    """What an MLP needs that goes backward by itself: its input and the gradients by both its ends, three wide matrices
    for the tokens of a piece, and its weights, which are restored for all pieces: of three, `need` counts one."""
    weights = 2 * shape.hidden * shape.intermediate if way.quantization == "nf4" else 0
    piece = 3 * shape.intermediate * min(load.tokens, PIECE)
    return way.width * (3 * shape.hidden * load.tokens + piece + weights)


def host_bytes(shape: Shape, way: Way, load: Load) -> int:
    """The inputs of all layers, and of their MLPs, if these go backward by themselves, in the memory of the host, where
    pinned memory comes in powers of two."""
    size, each = input_bytes(shape, way, load), 2 if way.whole_mlp else 1
    return shape.layers * each * (1 << (size - 1).bit_length() if size else 0)


def head_bytes(shape: Shape, way: Way, load: Load) -> int:
    """The logits that there are at a time."""
    if not way.linear_head:
        return load.tokens * shape.vocabulary * PLAIN_HEAD_BYTES
    each = KERNEL_HEAD_BYTES if way.cuda and way.width == 2 else HEAD_BYTES
    return min(load.tokens, HEAD_CHUNK) * shape.vocabulary * each


def weights(shape: Shape, way: Way) -> int:
    """Bytes of the base in a process. Only linear layers of the decoder are quantized, and divided: no embeddings,
    head, towers or experts. Beside its part of them, a process has two whole layers."""
    others = (shape.parameters - shape.matmuls) * way.width
    layers = shape.matmuls * (way.width if way.quantization == "none" else WEIGHT_BYTES[way.quantization])
    whole = 2 * layers / max(1, shape.layers) if way.shards > 1 else 0
    return int(layers / way.shards + whole + others)


def layer_bytes(shape: Shape, way: Way, load: Load) -> float:
    """What one layer saves of a token for its backward pass.

    With H the width of the model, Q and K those of queries and keys, and I that of the MLP, a Llama layer saves

    - the inputs of both norms: 2 H, in float32 unless they are one kernel, as on a GPU;
    - the inputs of the adapter's products: H for q, k and v, H for gate and up, I for down, unless the MLP computes it
      anew; the one for o is the attention's output. PEFT's layers over weights that are not quantized keep a copy for
      each product: 5 H, Q and I;
    - what attention needs: Q + 2 K, or 3 Q where keys are copied for their queries, and its output Q;
    - gate and up: 2 I, and the activated gate, too, unless they are one kernel: I.
    """
    hidden, inner = shape.hidden, shape.intermediate
    inputs = (3 if _copies(way) else 2) * hidden
    inputs += inner if way.tuned_mlp and not way.whole_mlp else 0
    kernels = way.fused and way.cuda
    mlp = 2 * inner if kernels else 3 * inner
    found = way.width * (inputs + mlp) + (way.width if kernels else NORM) * 2 * hidden
    return found * _extra(way) + attention_bytes(shape, way, load)


def attention_bytes(shape: Shape, way: Way, load: Load) -> float:
    """Those of them that are not kept if attention is recomputed from its input."""
    queries = shape.attention
    keys = shape.keys if way.shares_keys and way.attention == "varlen" else queries
    inputs = 2 * shape.hidden + queries if _copies(way) else 0
    found = way.width * (inputs + queries + 2 * keys + queries)
    if way.attention == "eager":
        found += EAGER_BYTES * shape.heads * load.row
    return found * _extra(way)


def _mlps_by_themselves(way: Way) -> bool:
    """Whether MLPs go backward from their own inputs where all layers are recomputed."""
    return way.offload and way.whole_mlp


def _copies(way: Way) -> bool:
    return not way.fused and way.quantization == "none"


def _extra(way: Way) -> float:
    return 1.0 if way.fused or not way.cuda else PLAIN_EXTRA


def begin(needs: Sequence[Need], free: int, optimism: float = 1.25) -> int:
    """Which of `needs`, the fastest first, to try first in `free` bytes: the first that may fit, if the estimate is too
    high by the factor `optimism`; else the last."""
    return next((at for at, each in enumerate(needs) if each.total <= free * optimism), len(needs) - 1)


def tokens_per_second(cost: Cost, shape: Shape, way: Way, tokens: float, *, recompute: float) -> float:
    """The speed at micro-batches of so many `tokens`. `cost`: of a token; its peak is that of the device. `recompute`:
    the share of the forward pass that is done again."""
    return tokens / max(_arithmetic(cost, way, tokens, recompute), _launches(shape, way, recompute))


def launch_bound(cost: Cost, shape: Shape, way: Way, tokens: float, *, recompute: float) -> bool:
    """Whether launching the kernels of a micro-batch takes longer than computing them."""
    return _launches(shape, way, recompute) > _arithmetic(cost, way, tokens, recompute)


def seconds(cost: Cost, shape: Shape, way: Way, amount: Amount, *, recompute: float) -> float:
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


def _arithmetic(cost: Cost, way: Way, tokens: float, recompute: float) -> float:
    share = EFFICIENCY.get((way.quantization, way.fused), EFFICIENCY["nf4", False])
    if not _mlps_by_themselves(way):
        share *= 1 - recompute * (1 - RECOMPUTED_EFFICIENCY)
    return tokens * cost.flops(recompute=recompute) / (cost.peak * (share if way.cuda else 1.0))


def _launches(shape: Shape, way: Way, recompute: float) -> float:
    if not way.cuda:
        return shape.layers * CPU_CALL_SECONDS
    return shape.layers * LAUNCH_SECONDS * (1 + 0.3 * recompute) * (GRAPH_LAUNCH if way.graphs else 1.0)

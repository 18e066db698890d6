"""Makes adapters right and fast on vLLM's CPU build.

vLLM marks the tokens of a request for the base with the slot -1. Its operations for the CPU take that for an index:
where a batch also holds requests for tuned models, the base answers with the adapter of the last slot, once all slots
are taken. The kernels for GPUs skip such tokens. (vLLM 0.32; its pull requests 48421 and 49656 are open.)

They also copy the adapter's matrices once per token, and multiply each copy with a single row: a tuned model of 135
million parameters answered nine times slower than its base. Here each adapter's matrix is read once for all its tokens.

Only vLLM's workers import this module, because `--worker-extension-cls` names its class; importing it mends the
operations.
"""

from __future__ import annotations

from typing import Any

from vllm.lora.ops import torch_ops
from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu


class CpuWorker:
    """Adds nothing to vLLM's worker."""


def product(inputs: Any, weights: Any, slots: Any, dtype: Any) -> Any:
    """Each row of `inputs` (tokens, n) times the matrix of its slot in `weights` (slots, 1, m, n) or (slots, m, n):
    (tokens, m) of `dtype`, in which it is computed. A row whose slot is -1 belongs to no adapter, and becomes zeros.

    Where either of `inputs` and `slots` has one row, it counts for all rows of the other, as in vLLM.
    """
    matrices = weights.squeeze(1) if weights.dim() == 4 else weights
    tokens = max(inputs.shape[0], slots.shape[0])
    inputs, slots = inputs.to(dtype).expand(tokens, -1), slots.expand(tokens)
    found = set(slots.tolist())
    if len(found) == 1 and -1 not in found:  # the usual batch: no row has to be moved
        return inputs @ matrices[found.pop()].to(dtype).T
    outputs = inputs.new_zeros(tokens, matrices.shape[1])
    for slot in sorted(found):
        if slot >= 0:
            rows = (slots == slot).nonzero().squeeze(1)
            outputs[rows] = inputs[rows] @ matrices[slot].to(dtype).T
    return outputs


def shrink(inputs: Any, weights: Any, output: Any, slots: Any, scaling: float = 1.0) -> None:
    """The first `weights.shape[-2]` columns of `output` become the scaled product."""
    output[:, : weights.shape[-2]] = scaling * product(inputs, weights, slots, output.dtype)


def expand(inputs: Any, weights: Any, output: Any, slots: Any, add_inputs: bool = True) -> None:
    """Like `expand_slice` from the first column on. Adapter and model may be padded to different widths."""
    width = min(weights.shape[-2], output.shape[1])
    expand_slice(inputs, weights[..., :width, :], output, slots, 0, width, add_inputs)


def expand_slice(
    inputs: Any, weights: Any, output: Any, slots: Any, slice_offset: int, slice_size: int, add_inputs: bool = True
) -> None:
    """Add the product to `slice_size` columns of `output`, or put it there."""
    part = output[:, slice_offset : slice_offset + slice_size]
    found = product(inputs, weights, slots, output.dtype)[: output.shape[0]]
    if add_inputs:
        part += found
    else:
        part[:] = found


for _name, _mended in (("bgmv_shrink", shrink), ("bgmv_expand", expand), ("bgmv_expand_slice", expand_slice)):
    for _module in (lora_ops, torch_ops, punica_cpu):  # the last two have imported them by name
        setattr(_module, _name, _mended)

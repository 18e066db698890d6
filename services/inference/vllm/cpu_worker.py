"""Keeps adapters out of what the base answers, on vLLM's CPU build.

vLLM marks the tokens of a request for the base with the slot -1. Its operations for the CPU take that for an index:
where a batch also holds requests for tuned models, the base answers with the adapter of the last slot, once all slots
are taken. The kernels for GPUs skip such tokens. (vLLM 0.32; its pull requests 48421 and 49656 are open.)

Only vLLM's workers import this module, because `--worker-extension-cls` names its class; importing it mends the
operations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm.lora.ops import torch_ops
from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu

OPERATIONS = ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")


class CpuWorker:
    """Adds nothing to vLLM's worker."""


def sparing(operation: Callable[..., None]) -> Callable[..., None]:
    """`operation` on rows of inputs and the slots of their adapters, without effect on rows whose slot is -1.

    The operations are linear in their inputs, so a row of zeros adds nothing, whatever the adapter.
    """

    def spared(inputs: Any, weights: Any, output: Any, slots: Any, *more: Any, **named: Any) -> None:
        none = slots < 0
        if none.any():
            inputs, slots = inputs.masked_fill(none.unsqueeze(-1), 0), slots.clamp(min=0)
        operation(inputs, weights, output, slots, *more, **named)

    return spared


for _name in OPERATIONS:
    _spared = sparing(getattr(lora_ops, _name))
    for _module in (lora_ops, torch_ops, punica_cpu):  # the last two have imported them by name
        setattr(_module, _name, _spared)

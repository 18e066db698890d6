"""What the training process uses of the machine, and what the machine could do."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import torch

from services.trainer.domain.layers import cost_of_token
from services.trainer.domain.memory_plan import CPU_FLOPS, UNKNOWN_PEAK
from services.trainer.domain.utilization import Cost, peak_flops
from services.trainer.engine.data.dataset import Dataset
from services.trainer.engine.model.base import BaseFacts


def memory_in_use(device: Any) -> tuple[int, int]:
    """Bytes of tensors on the GPU, now and the most so far; without a GPU, the memory of the process."""
    if device.type == "cuda":
        found = torch.cuda.memory_stats(device)  # both at once: it is asked after each step
        return found.get("allocated_bytes.all.current", 0), found.get("allocated_bytes.all.peak", 0)
    try:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        # not getrusage: its peak begins with that of the process that started this one
        now, peak = (int(status[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    except (OSError, ValueError, KeyError, IndexError):  # no Linux
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return peak, peak
    return now, max(peak, now)


def cost_of(base: BaseFacts, train: Dataset, device: Any, devices: int = 1) -> Cost | None:
    """What a token of the training costs on average, on so many devices of that kind. None: there is no GPU, or its
    peak is not known; or there are experts, of which a token meets only some."""
    peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    if peak is None:
        return None
    return cost_of_token(
        base.config.get_text_config(),
        base.layers,
        squares=train.squares,
        tokens=train.tokens,
        trained_tokens=train.trained_tokens,
        peak=peak * devices,
    )


def assumed_peak(device: Any) -> float:
    """FLOP/s for an estimate of the time: where the peak is not known, it is assumed."""
    if device.type != "cuda":
        return CPU_FLOPS
    return peak_flops(torch.cuda.get_device_name(device)) or UNKNOWN_PEAK

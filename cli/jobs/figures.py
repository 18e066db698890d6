"""The figures of a training in one line."""

from __future__ import annotations

from typing import Any, TypeGuard

from cli.client import Json

GIB = 2**30
LOSSES = (("train_loss", "train loss"), ("valid_loss", "valid loss"), ("full_valid_loss", "full valid loss"))


def metrics(data: Json) -> str:
    """The known figures of a training: `step 40/135  train loss 1.2340  5,210 tokens/s  MFU 41.0%  12.1 GiB (peak 14.0)
    18.0 s left`."""
    parts = []
    if data.get("step") is not None:
        total = f"/{data['total_steps']}" if data.get("total_steps") is not None else ""
        parts.append(f"step {data['step']}{total}")
    parts += [f"{name} {data[key]:.4f}" for key, name in LOSSES if is_number(data.get(key))]
    if is_number(data.get("tokens_per_second")):
        parts.append(f"{data['tokens_per_second']:,.0f} tokens/s")
    if is_number(data.get("mfu")):
        parts.append(f"MFU {data['mfu']:.1%}")
    if is_number(data.get("memory_bytes")):
        peak = f" (peak {data['peak_memory_bytes'] / GIB:.1f})" if is_number(data.get("peak_memory_bytes")) else ""
        parts.append(f"{data['memory_bytes'] / GIB:.1f} GiB{peak}")
    if is_number(data.get("eta_seconds")):
        parts.append(f"{duration(data['eta_seconds'])} left")
    return "  ".join(parts)


def phase(data: Json) -> str:
    """How far the phase of a training is that lasts longer than a few seconds: `tokenize  400 of 1,000  12.0 s`; empty
    if the phase under way has said nothing yet, or is an epoch."""
    told = data.get("progress")
    if (
        not isinstance(told, dict)
        or told.get("phase") != data.get("phase")
        or str(told.get("phase")).startswith("epoch")
    ):
        return ""
    parts = [str(told["phase"])]
    if is_number(told.get("done")):
        parts.append(f"{told['done']:,}" + (f" of {told['total']:,}" if is_number(told.get("total")) else ""))
    if is_number(told.get("seconds")):
        parts.append(duration(told["seconds"]))
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """A duration in words: `8.2 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)

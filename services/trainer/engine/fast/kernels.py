"""Triton kernels for what torch does in several passes over memory, each with what it replaces beside it in a test."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # not on every platform; nothing here is called there
    triton = None

BLOCK = 8192
"""So many scores of a row are read at a time."""
ROW = 16384
"""A row of at most so many numbers is read once, to be quantized."""


def available(values: Any) -> bool:
    """Whether the kernels take `values`."""
    return bool(values.device.type == "cuda" and values.dtype == torch.bfloat16 and problem(values.device) is None)


@cache
def problem(device: Any) -> str | None:
    """Why the kernels do not run on `device`; None: they do. They are compiled at their first use, which needs a C
    compiler."""
    if device.type != "cuda":
        return "they are for GPUs"
    if triton is None:
        return "Triton is not installed"
    try:
        tried = torch.zeros(1, 16, dtype=torch.bfloat16, device=device)
        losses_(tried, torch.zeros(1, dtype=torch.int64, device=device), slopes=True)
        torch.cuda.synchronize(device)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        return f"they cannot be compiled here ({type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]})"
    return None


def losses_(scores: Any, targets: Any, *, slopes: bool) -> tuple[Any, Any]:
    """Of each row of `scores`, (rows, vocabulary): the cross-entropy with `targets`, (rows,), in float32, and whether
    the largest score is the target's. A negative target has loss 0 and is not met. `slopes`: the gradient of each row's
    loss replaces its scores."""
    rows, vocabulary = scores.shape
    loss = torch.empty(rows, dtype=torch.float32, device=scores.device)
    correct = torch.empty(rows, dtype=torch.bool, device=scores.device)
    if rows:
        _losses[(rows,)](
            scores, scores.stride(0), targets, loss, correct, vocabulary, SLOPES=slopes, BLOCK=BLOCK, num_warps=16
        )
    return loss, correct


def quantize_rows(values: Any, kind: Any, largest: float) -> tuple[Any, Any]:
    """`values`, (rows, width), as numbers of the type `kind`, whose largest is `largest`, and what each row was divided
    by: (rows, 1) float32."""
    rows, width = values.shape
    small = torch.empty(rows, width, dtype=kind, device=values.device)
    scales = torch.empty(rows, 1, dtype=torch.float32, device=values.device)
    if rows:
        block = min(triton.next_power_of_2(width), ROW)
        _quantize[(rows,)](values, values.stride(0), small, scales, width, largest, BLOCK=block, num_warps=8)
    return small, scales


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def _losses(  # type: ignore[no-untyped-def]
        scores, stride, targets, loss, correct, vocabulary, SLOPES: tl.constexpr, BLOCK: tl.constexpr
    ):
        row = tl.program_id(0).to(tl.int64)
        scores += row * stride
        target = tl.load(targets + row)
        top = float("-inf")
        total = 0.0
        best = 0
        for begin in range(0, vocabulary, BLOCK):
            at = begin + tl.arange(0, BLOCK)
            values = tl.load(scores + at, mask=at < vocabulary, other=float("-inf")).to(tl.float32)
            high = tl.max(values, 0)
            best = tl.where(high > top, begin + tl.argmax(values, 0), best)
            larger = tl.maximum(top, high)
            total = total * tl.exp(top - larger) + tl.sum(tl.exp(values - larger), 0)
            top = larger
        real = target >= 0
        wanted = tl.load(scores + tl.maximum(target, 0)).to(tl.float32)
        tl.store(loss + row, tl.where(real, tl.log(total) + top - wanted, 0.0))
        tl.store(correct + row, real & (best == target))
        if SLOPES:
            share = tl.where(real, 1.0 / total, 0.0)
            for begin in range(0, vocabulary, BLOCK):
                at = begin + tl.arange(0, BLOCK)
                values = tl.load(scores + at, mask=at < vocabulary, other=float("-inf")).to(tl.float32)
                slope = tl.exp(values - top) * share
                slope = tl.where(at == target, slope - 1.0, slope)
                tl.store(scores + at, slope.to(scores.dtype.element_ty), mask=at < vocabulary)

    @triton.jit  # type: ignore[untyped-decorator]
    def _quantize(  # type: ignore[no-untyped-def]
        values, stride, small, scales, width, largest, BLOCK: tl.constexpr
    ):
        row = tl.program_id(0).to(tl.int64)
        values += row * stride
        small += row * width
        high = 1e-12 * largest
        if width <= BLOCK:
            at = tl.arange(0, BLOCK)
            part = tl.load(values + at, mask=at < width, other=0.0).to(tl.float32)
            scale = tl.maximum(high, tl.max(tl.abs(part), 0)) / largest
            part = tl.minimum(tl.maximum(part / scale, -largest), largest)
            tl.store(small + at, part.to(small.dtype.element_ty), mask=at < width)
        else:
            for begin in range(0, width, BLOCK):
                at = begin + tl.arange(0, BLOCK)
                part = tl.load(values + at, mask=at < width, other=0.0).to(tl.float32)
                high = tl.maximum(high, tl.max(tl.abs(part), 0))
            scale = high / largest
            for begin in range(0, width, BLOCK):
                at = begin + tl.arange(0, BLOCK)
                part = tl.load(values + at, mask=at < width, other=0.0).to(tl.float32) / scale
                part = tl.minimum(tl.maximum(part, -largest), largest)
                tl.store(small + at, part.to(small.dtype.element_ty), mask=at < width)
        tl.store(scales + row, scale)

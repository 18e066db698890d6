"""Small products of adapters, added to large ones that are there already: one pass over the large ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.trainer.engine.fast import kernels

try:
    import triton
    import triton.language as tl

    from services.trainer.engine.fast.adapters.gated import HIGHEST_RANK, small_product
except ImportError:  # not on every platform; nothing here is called there
    triton = None

TOKENS, WIDTH = 16, 256
"""The numbers that one program computes."""
MOST = 2
"""Other matrices that the kernel adds."""


def add_(found: Any, low: Any, right: Any, others: Sequence[Any] = ()) -> Any:
    """`found` + `low` `right` + all `others`, in place of `found`, (tokens, width). `low`: (tokens, rank), `right`:
    (rank, width), `others`: as `found`."""
    if not kernels.available(found) or len(others) > MOST or low.shape[1] > HIGHEST_RANK:
        return add_plain_(found, low, right, others)
    return add_in_a_kernel_(found, low, right, others)


def add_plain_(found: Any, low: Any, right: Any, others: Sequence[Any] = ()) -> Any:
    """The same in several passes."""
    for other in others:
        found += other
    return found.addmm_(low, right)


def add_in_a_kernel_(found: Any, low: Any, right: Any, others: Sequence[Any] = ()) -> Any:
    """The same of at most `MOST` others."""
    tokens, width = found.shape
    one, two, *_ = (*others, found, found)
    if found.numel():
        _add[(triton.cdiv(width, WIDTH), triton.cdiv(tokens, TOKENS))](
            found, one, two, low, low.stride(0), right, right.stride(1), right.stride(0), low.shape[1], tokens, width,
            COUNT=len(others), RANK=max(16, triton.next_power_of_2(low.shape[1])), TOKENS=TOKENS, WIDTH=WIDTH,
            num_warps=4,
        )  # fmt: skip
    return found


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def _add(  # type: ignore[no-untyped-def]
        found, one, two, low, stride, right, across, along, rank, tokens, width,
        COUNT: tl.constexpr, RANK: tl.constexpr, TOKENS: tl.constexpr, WIDTH: tl.constexpr,
    ):  # fmt: skip
        columns = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
        rows = tl.program_id(1).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
        mask = (rows[:, None] < tokens) & (columns[None, :] < width)
        at = rows[:, None] * width + columns[None, :]
        total = tl.load(found + at, mask=mask, other=0.0).to(tl.float32)
        if COUNT > 0:
            total += tl.load(one + at, mask=mask, other=0.0).to(tl.float32)
        if COUNT > 1:
            total += tl.load(two + at, mask=mask, other=0.0).to(tl.float32)
        total += small_product(low, stride, right, across, along, rank, rows, columns, tokens, width, RANK)
        tl.store(found + at, total.to(found.dtype.element_ty), mask=mask)

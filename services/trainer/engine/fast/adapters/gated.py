"""The gated product in the middle of an MLP, silu(g) * u, with what adapters add to g and u: as Triton kernels that
read and write each number once, and written plainly.

The adapters' part is small x Bᵀ of rank 16 or so. Added by a product of its own it would read and write all of g and u
once more, which takes longer than computing it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

try:
    import triton
    import triton.language as tl
except ImportError:  # not on every platform; nothing here is called there
    triton = None

TOKENS, WIDTH = 16, 128
"""The numbers that one program computes."""
HIGHEST_RANK = 128
"""Of an adapter that the kernels take."""


def gated(gate: Any, up: Any, lows: tuple[Any, Any], ups: tuple[Any, Any]) -> Any:
    """silu(`gate` + low upᵀ) * (`up` + low upᵀ): (tokens, width). `gate`, `up`: (tokens, width), contiguous. `lows`,
    `ups`: (tokens, rank) and (width, rank) of either."""
    tokens, width = gate.shape
    hidden = torch.empty_like(gate)
    if gate.numel():
        _gated[_grid(tokens, width)](gate, up, *_adapters(lows, ups), hidden, tokens, width, **_sizes(lows))
    return hidden


def gated_back_(
    slope: Any, gate: Any, up: Any, lows: tuple[Any, Any], ups: tuple[Any, Any], back: Any, down: Any
) -> None:
    """The gradients by both sums of `gated`, in place of `gate` and `up`, and its result in place of `slope`. The
    gradient by the result is `slope` + `back` `down`; `back`: (tokens, rank), `down`: (rank, width)."""
    tokens, width = gate.shape
    if gate.numel():
        _gated_back[_grid(tokens, width)](
            slope, gate, up, *_adapters(lows, ups), back, back.stride(0), down, down.shape[0], tokens, width,
            **_sizes((*lows, back)),
        )  # fmt: skip


def gated_plain(gate: Any, up: Any, lows: tuple[Any, Any], ups: tuple[Any, Any]) -> Any:
    """What `gated` computes, for any device."""
    one, other = (sums + low @ each.t() for sums, low, each in zip((gate, up), lows, ups, strict=True))
    return F.silu(one) * other


def gated_back_plain_(
    slope: Any, gate: Any, up: Any, lows: tuple[Any, Any], ups: tuple[Any, Any], back: Any, down: Any
) -> None:
    """What `gated_back_` computes, for any device."""
    one, other = (sums + low @ each.t() for sums, low, each in zip((gate, up), lows, ups, strict=True))
    whole, open_ = slope + back @ down, torch.sigmoid(one)
    slope.copy_(one * open_ * other)
    up.copy_(whole * one * open_)
    gate.copy_(whole * other * open_ * (1 + one * (1 - open_)))


def _grid(tokens: int, width: int) -> tuple[int, int]:
    return triton.cdiv(width, WIDTH), triton.cdiv(tokens, TOKENS)


def _adapters(lows: tuple[Any, Any], ups: tuple[Any, Any]) -> list[Any]:
    return [part for low, up in zip(lows, ups, strict=True) for part in (low, low.stride(0), up, up.shape[1])]


def _sizes(lows: tuple[Any, ...]) -> dict[str, int]:
    rank = max(16, *(triton.next_power_of_2(low.shape[1]) for low in lows))
    return {"RANK": rank, "TOKENS": TOKENS, "WIDTH": WIDTH, "num_warps": 4}


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def small_product(  # type: ignore[no-untyped-def]
        low, stride, right, across, along, rank, rows, columns, tokens, width, RANK: tl.constexpr
    ):
        """A small product: of `low`, (tokens, rank), and the matrix `right`, whose next number of a column is `along`
        and of a row `across` numbers further on."""
        at = tl.arange(0, RANK)
        left = tl.load(
            low + rows[:, None] * stride + at[None, :],
            mask=(rows[:, None] < tokens) & (at[None, :] < rank),
            other=0.0,
        )
        other = tl.load(
            right + at[:, None] * along + columns[None, :] * across,
            mask=(at[:, None] < rank) & (columns[None, :] < width),
            other=0.0,
        )
        return tl.dot(left, other)

    @triton.jit  # type: ignore[untyped-decorator]
    def _gated(  # type: ignore[no-untyped-def]
        gate, up, low_g, stride_g, up_g, rank_g, low_u, stride_u, up_u, rank_u, hidden, tokens, width,
        RANK: tl.constexpr, TOKENS: tl.constexpr, WIDTH: tl.constexpr,
    ):  # fmt: skip
        columns = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
        rows = tl.program_id(1).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
        mask = (rows[:, None] < tokens) & (columns[None, :] < width)
        at = rows[:, None] * width + columns[None, :]
        one = tl.load(gate + at, mask=mask, other=0.0).to(tl.float32)
        one += small_product(low_g, stride_g, up_g, rank_g, 1, rank_g, rows, columns, tokens, width, RANK)
        other = tl.load(up + at, mask=mask, other=0.0).to(tl.float32)
        other += small_product(low_u, stride_u, up_u, rank_u, 1, rank_u, rows, columns, tokens, width, RANK)
        tl.store(hidden + at, (one * tl.sigmoid(one) * other).to(hidden.dtype.element_ty), mask=mask)

    @triton.jit  # type: ignore[untyped-decorator]
    def _gated_back(  # type: ignore[no-untyped-def]
        slope, gate, up, low_g, stride_g, up_g, rank_g, low_u, stride_u, up_u, rank_u, back, stride, down, rank,
        tokens, width, RANK: tl.constexpr, TOKENS: tl.constexpr, WIDTH: tl.constexpr,
    ):  # fmt: skip
        columns = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
        rows = tl.program_id(1).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
        mask = (rows[:, None] < tokens) & (columns[None, :] < width)
        at = rows[:, None] * width + columns[None, :]
        gates = tl.load(gate + at, mask=mask, other=0.0)
        ups = tl.load(up + at, mask=mask, other=0.0)
        slopes = tl.load(slope + at, mask=mask, other=0.0)
        of_gate = small_product(low_g, stride_g, up_g, rank_g, 1, rank_g, rows, columns, tokens, width, RANK)
        of_up = small_product(low_u, stride_u, up_u, rank_u, 1, rank_u, rows, columns, tokens, width, RANK)
        of_slope = small_product(back, stride, down, 1, width, rank, rows, columns, tokens, width, RANK)
        one, other = gates.to(tl.float32) + of_gate, ups.to(tl.float32) + of_up
        whole = slopes.to(tl.float32) + of_slope
        open_ = tl.sigmoid(one)
        let = one * open_
        kind = gate.dtype.element_ty
        tl.store(slope + at, (let * other).to(kind), mask=mask)
        tl.store(up + at, (whole * let).to(kind), mask=mask)
        tl.store(gate + at, (whole * other * (open_ + let * (1 - open_))).to(kind), mask=mask)

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
STEPS = 32
"""So many times as many tokens, one after the other, where gradients of adapters are added up on the way."""
HIGHEST_RANK, HIGHEST_SUMMED = 128, 16
"""The ranks of adapters that the kernels take, and those whose gradients a program can hold while it adds them up."""


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
    if gate.numel():
        _back(slope, gate, up, lows, ups, back, down, steps=1)


def takes_adapters(lows: tuple[Any, Any], back: Any) -> bool:
    """Whether `gated_back_with_adapters_` takes adapters of these ranks."""
    return all(each.shape[1] <= HIGHEST_SUMMED for each in (*lows, back))


def gated_back_with_adapters_(
    slope: Any, gate: Any, up: Any, lows: tuple[Any, Any], ups: tuple[Any, Any], back: Any, down: Any
) -> tuple[Any, Any, Any]:
    """What `gated_back_` does, but `slope` stays as it is; instead, the gradients by both `ups`, (width, rank), and by
    `down`, (rank, width), in float32. They are added up while the wide matrices are there, which are not read again."""
    tokens, width = gate.shape
    parts = triton.cdiv(tokens, TOKENS * STEPS)
    sizes = [width * each.shape[1] for each in (*lows, back)]
    sums = torch.empty(parts, sum(sizes), dtype=torch.float32, device=gate.device)
    if gate.numel():
        _back(slope, gate, up, lows, ups, back, down, steps=STEPS, sums=sums)
    of_gate, of_up, of_down = sums.sum(0).split(sizes)
    return of_gate.view(width, -1), of_up.view(width, -1), of_down.view(-1, width)


def _back(
    slope: Any, gate: Any, up: Any, lows: tuple[Any, Any], ups: tuple[Any, Any], back: Any, down: Any,
    *, steps: int, sums: Any = None,
) -> None:  # fmt: skip
    tokens, width = gate.shape
    _gated_back[(triton.cdiv(width, WIDTH), triton.cdiv(tokens, TOKENS * steps))](
        slope, gate, up, *_adapters(lows, ups), back, back.stride(0), down, down.shape[0],
        slope if sums is None else sums, tokens, width, STEPS=steps, SUMS=sums is not None, **_sizes((*lows, back)),
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
        slope, gate, up, low_g, stride_g, up_g, rank_g, low_u, stride_u, up_u, rank_u, back, stride, down, rank, sums,
        tokens, width, STEPS: tl.constexpr, SUMS: tl.constexpr,
        RANK: tl.constexpr, TOKENS: tl.constexpr, WIDTH: tl.constexpr,
    ):  # fmt: skip
        columns = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
        part = tl.program_id(1).to(tl.int64)
        ranks = tl.arange(0, RANK)
        right_g = tl.load(
            up_g + columns[None, :] * rank_g + ranks[:, None],
            mask=(columns[None, :] < width) & (ranks[:, None] < rank_g),
            other=0.0,
        )
        right_u = tl.load(
            up_u + columns[None, :] * rank_u + ranks[:, None],
            mask=(columns[None, :] < width) & (ranks[:, None] < rank_u),
            other=0.0,
        )
        right = tl.load(
            down + ranks[:, None] * width + columns[None, :],
            mask=(columns[None, :] < width) & (ranks[:, None] < rank),
            other=0.0,
        )
        of_up_g = tl.zeros((WIDTH, RANK), tl.float32)
        of_up_u = tl.zeros((WIDTH, RANK), tl.float32)
        of_down = tl.zeros((WIDTH, RANK), tl.float32)
        kind = gate.dtype.element_ty
        for step in range(STEPS):
            rows = (part * STEPS + step) * TOKENS + tl.arange(0, TOKENS)
            there = rows[:, None] < tokens
            mask = there & (columns[None, :] < width)
            at = rows[:, None] * width + columns[None, :]
            left_g = tl.load(
                low_g + rows[:, None] * stride_g + ranks[None, :], mask=there & (ranks[None, :] < rank_g), other=0.0
            )
            left_u = tl.load(
                low_u + rows[:, None] * stride_u + ranks[None, :], mask=there & (ranks[None, :] < rank_u), other=0.0
            )
            left = tl.load(
                back + rows[:, None] * stride + ranks[None, :], mask=there & (ranks[None, :] < rank), other=0.0
            )
            one = tl.load(gate + at, mask=mask, other=0.0).to(tl.float32) + tl.dot(left_g, right_g)
            other = tl.load(up + at, mask=mask, other=0.0).to(tl.float32) + tl.dot(left_u, right_u)
            whole = tl.load(slope + at, mask=mask, other=0.0).to(tl.float32) + tl.dot(left, right)
            open_ = tl.sigmoid(one)
            let = one * open_
            hidden = (let * other).to(kind)
            of_other = (whole * let).to(kind)
            of_one = (whole * other * (open_ + let * (1 - open_))).to(kind)
            tl.store(up + at, of_other, mask=mask)
            tl.store(gate + at, of_one, mask=mask)
            if SUMS:
                of_up_g += tl.dot(tl.trans(of_one), left_g)
                of_up_u += tl.dot(tl.trans(of_other), left_u)
                of_down += tl.dot(tl.trans(hidden), left)
            else:
                tl.store(slope + at, hidden, mask=mask)
        if SUMS:
            sums += part * width * (rank_g + rank_u + rank)
            inside = columns[:, None] < width
            at_g = columns[:, None] * rank_g + ranks[None, :]
            tl.store(sums + at_g, of_up_g, mask=inside & (ranks[None, :] < rank_g))
            sums += width * rank_g
            at_u = columns[:, None] * rank_u + ranks[None, :]
            tl.store(sums + at_u, of_up_u, mask=inside & (ranks[None, :] < rank_u))
            sums += width * rank_u
            at_down = ranks[None, :] * width + columns[:, None]
            tl.store(sums + at_down, of_down, mask=inside & (ranks[None, :] < rank))

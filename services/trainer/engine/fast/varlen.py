"""Attention within each document of packed rows, by torch's kernel for sequences of different lengths (on a GPU)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from transformers import AttentionInterface

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # not in every build of torch
    varlen_attn = None

NAME = "tunestream_varlen"
"""Its name among transformers' implementations of attention."""
MOST = 2**31
"""The kernel's backward pass counts the numbers of its buffers in int32."""
WIDEST_HEAD = 256
ROUNDING = 2e-2
"""The relative error of its results in 16 bits, and more than that."""
OPTIONS = frozenset(inspect.signature(varlen_attn).parameters) if varlen_attn else frozenset()
"""What this torch's kernel can be told."""


def shares_keys(device: Any, dtype: Any, head_dim: int, groups: int) -> bool:
    """Whether the kernel of this torch takes `groups` times fewer heads of keys than of queries; else they are
    copied."""
    return groups == 1 or "enable_gqa" in OPTIONS or fewer_heads(device, dtype, head_dim, groups)


def most_documents(tokens: int, heads: int, head_dim: int) -> int:
    """How many documents a micro-batch of so many tokens may have, so that the kernel's indexes do not overflow: its
    buffer has 128 rows more for each document."""
    return (((MOST - 1) // (heads * _padded(head_dim))) - tokens) // 128


def check_size(tokens: int, documents: int, heads: int, head_dim: int) -> None:
    """Raises:
    ValueError: the kernel would compute a wrong gradient, because its indexes overflow.
    """
    if (tokens + 128 * documents) * heads * _padded(head_dim) >= MOST:
        raise ValueError(f"{documents} documents in {tokens} tokens are too many for the attention kernel")


def _padded(head_dim: int) -> int:
    return -(-head_dim // 32) * 32


def attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Any = None,
    max_length_q: int | None = None,
    **_: Any,
) -> tuple[Any, None]:
    """As transformers calls it: `query` is (rows, heads, length, head_dim), `key` and `value` may have fewer heads; the
    result is (rows, length, heads, head_dim). All rows are read as one; documents begin at `cu_seq_lens_q`.

    Raises:
        ValueError: the model does not hand on where the documents begin, or there are too many of them.
    """
    if cu_seq_lens_q is None or max_length_q is None:
        raise ValueError(f"{type(module).__name__} was not told where the documents begin")
    rows, heads, length, head_dim = query.shape
    check_size(rows * length, len(cu_seq_lens_q) - 1, heads, head_dim)
    q, k, v = (
        each.transpose(1, 2).reshape(rows * length, -1, head_dim).to(value.dtype) for each in (query, key, value)
    )
    scale = head_dim**-0.5 if scaling is None else scaling
    found = kernel(q, k, v, cu_seq_lens_q, max_length_q, scale=scale, window=sliding_window)
    return found.view(rows, length, heads, head_dim), None


def kernel(query: Any, key: Any, value: Any, begins: Any, longest: int, *, scale: float, window: int | None) -> Any:
    """Causal attention of `query`, (tokens, heads, head_dim), to `key` and `value`, (tokens, fewer heads, head_dim), of
    its own document, of which it sees the last `window` tokens (None: all)."""
    arguments = causal(window)
    if "scale" in OPTIONS:
        arguments["scale"] = scale
    else:
        query = query * (scale * query.shape[-1] ** 0.5)
    groups = query.shape[1] // key.shape[1]
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()  # rotated ones have heads outside
    if groups > 1 and "enable_gqa" in OPTIONS:
        arguments["enable_gqa"] = True
    elif not shares_keys(query.device, query.dtype, query.shape[-1], groups):
        key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    return varlen_attn(query, key, value, begins, begins, longest, longest, **arguments)


@cache
def fewer_heads(device: Any, dtype: Any, head_dim: int, groups: int) -> bool:
    """Whether the kernel is right where keys have `groups` times fewer heads, though it does not say so."""

    def as_it_is(query: Any, key: Any, value: Any, begins: Any, longest: int, **_scaled_as_usual: Any) -> Any:
        return varlen_attn(query, key, value, begins, begins, longest, longest, **causal(None))

    try:
        return agrees(as_it_is, device, dtype, head_dim, groups)
    except (RuntimeError, ValueError, TypeError):
        return False


def agrees(attention: Callable[..., Any], device: Any, dtype: Any, head_dim: int, groups: int) -> bool:
    """Whether `attention` computes what `reference` does, where keys have `groups` times fewer heads: tried with two
    small documents, forward and backward. Raises what it does."""
    drawn = torch.Generator().manual_seed(0)
    begins, scale = torch.tensor([0, 40, 96], dtype=torch.int32, device=device), head_dim**-0.5
    shapes = [(96, heads, head_dim) for heads in (2 * groups, 2, 2, 2 * groups)]
    *inputs, weights = (torch.randn(shape, generator=drawn).to(device, dtype) for shape in shapes)

    def results(compute: Callable[..., Any]) -> tuple[Any, ...]:
        query, key, value = (each.detach().requires_grad_() for each in inputs)
        with torch.enable_grad():
            result = compute(query, key, value, begins, 56, scale=scale, window=None)
            return (result, *torch.autograd.grad((result * weights).sum(), (query, key, value)))

    return all(
        bool((one.float() - other.float()).norm() <= ROUNDING * other.float().norm())
        for one, other in zip(results(attention), results(reference), strict=True)
    )


def causal(window: int | None) -> dict[str, Any]:
    """How this torch's kernel is told to look back at `window` tokens (None: at all)."""
    if "window_size" in OPTIONS:
        return {"window_size": (-1 if window is None else window - 1, 0)}
    if window is not None:
        raise ValueError("this torch has no sliding windows in its attention kernel")
    return {"is_causal": True}


def reference(query: Any, key: Any, value: Any, begins: Any, longest: int, *, scale: float, window: int | None) -> Any:
    """What `kernel` computes, written plainly, for tests and for any device."""
    groups = query.shape[1] // key.shape[1]
    key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    place = torch.arange(len(query), device=query.device)
    document = torch.bucketize(place, begins[1:].long(), right=True)
    behind = place[:, None] - place[None, :]
    seen = (document[:, None] == document[None, :]) & (behind >= 0)
    if window is not None:
        seen &= behind < window
    scores = torch.einsum("qhd,khd->hqk", query, key) * scale
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1).to(value.dtype)
    return torch.einsum("hqk,khd->qhd", weights, value)


def available() -> bool:
    """Whether this torch has the kernel."""
    return bool(OPTIONS)


# transformers makes no mask for an attention that it knows none for. With one for it, it would ask the GPU in each
# forward pass whether a row has several documents, and wait for all that was launched before.
AttentionInterface.register(NAME, attend)

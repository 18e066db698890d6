"""A gated MLP with adapters on its three linear layers, down(silu(gate(x)) * up(x)), as one operation: it reads and
writes the wide matrices fewer times than the three layers by themselves.

Its backward pass computes silu(g) * u anew instead of keeping it. Either g and u are kept, or nothing but x: then they
are computed anew, too, for some of the tokens at a time; but not what the last layer makes of them, on which nothing
depends any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from services.trainer.domain.memory_plan import PIECE
from services.trainer.engine.fast import kernels
from services.trainer.engine.fast.adapters import gated
from services.trainer.engine.fast.adapters.linears import (
    Adapted,
    computed_in,
    in_turn,
    lora_linears,
    of_a,
    of_b,
    shared_reading,
)
from services.trainer.engine.fast.adapters.small import Small
from services.trainer.engine.fast.frozen import back_through

Keep = Callable[[Any], Callable[[], Any]]
"""Is given a tensor, and returns what gives it back."""


def whole(values: Any, gate: Adapted, up: Adapted, down: Adapted) -> Any:
    """`values`, (..., inputs), to (..., outputs), in autocast's type if that is on. The backward pass can be run once:
    it puts gradients where g and u were. So it is with `in_pieces`."""
    return _Whole.apply(computed_in(values), (gate, up, down), *_parts(gate, up, down))


def in_pieces(values: Any, gate: Adapted, up: Adapted, down: Adapted, *, keep: Keep) -> Any:
    """The same. `keep` has the input until the backward pass."""
    return _InPieces.apply(computed_in(values), (gate, up, down), keep, *_parts(gate, up, down))


def plain(values: Any, gate: Adapted, up: Adapted, down: Adapted) -> Any:
    """The same of layers by themselves, for tests."""
    (one,), (other,) = lora_linears(values, [gate]), lora_linears(values, [up])
    return lora_linears(torch.nn.functional.silu(one) * other, [down])[0]


class _Between(NamedTuple):
    """`gates`, `ups`: (tokens, width), what the first two layers make of the input, without what their adapters add.
    `low`: (tokens, sum of ranks), the input times `a` of both adapters."""

    gates: Any
    ups: Any
    low: Any

    @classmethod
    def of(cls, layers: Sequence[Adapted], inner: Small, rows: Any) -> _Between:
        gate, up, _ = layers
        reading = shared_reading(layers[:2], rows)
        gates, ups = gate.weight.forward(reading, None, None), up.weight.forward(reading, None, None)
        return cls(gates, ups, rows @ inner.down.t())

    def hidden(self, layers: Sequence[Adapted], inner: Small) -> Any:
        """What the last layer reads: (tokens, width)."""
        product = gated.gated if kernels.available(self.gates) else gated.gated_plain
        return product(self.gates, self.ups, self.lows(layers), inner.ups)

    def lows(self, layers: Sequence[Adapted]) -> tuple[Any, Any]:
        first, second = self.low.split([layer.a.shape[0] for layer in layers[:2]], 1)
        return first, second


def _back(
    layers: Sequence[Adapted], inner: Small, outer: Small, rows: Any, between: _Between, low: Any, slope: Any,
    *, through: bool,
) -> tuple[Any, list[Any]]:  # fmt: skip
    """The gradients by `rows`, if it is asked for (`through`), and by the adapters. `between` is overwritten. `low`:
    what the last adapter's `a` made of its input, or None. `slope`: (tokens, outputs)."""
    gate, up, down = layers
    gates, ups, low_of_inner = between
    back, hidden = outer.back([slope]), down.weight.backward(slope)
    wide = hidden, gates, ups, between.lows(layers), inner.ups, back, outer.down
    if low is not None and kernels.available(gates) and gated.takes_adapters(wide[3], back):
        of_gate, of_up, of_down = gated.gated_back_with_adapters_(*wide)
        of_ups = [(of_gate * gate.scale).to(gate.b.dtype), (of_up * up.scale).to(up.b.dtype)]
        of_downs = [of_down.to(down.a.dtype)]
    else:
        product = gated.gated_back_ if kernels.available(gates) else gated.gated_back_plain_
        product(*wide)
        low = hidden @ outer.down.t() if low is None else low
        of_ups, of_downs = of_b([gate, up], [gates, ups], low_of_inner), of_a([down], back, hidden)
    del hidden, wide
    of_outer = in_turn(of_downs, of_b([down], [slope], low))
    back = inner.back([gates, ups])
    of_inner = in_turn(of_a([gate, up], back, rows), of_ups)
    of_rows = back_through([gate.weight, up.weight], [gates, ups], back, inner.down) if through else None
    return of_rows, [*of_inner, *of_outer]


class _Whole(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, values: Any, layers: tuple[Adapted, ...], *_adapters: Any) -> Any:
        rows = values.reshape(-1, values.shape[-1])
        inner, outer = _small(layers, values.dtype)
        between = _Between.of(layers, inner, rows)
        hidden = between.hidden(layers, inner)
        low = hidden @ outer.down.t()
        found = layers[2].weight.forward(hidden, low, outer.ups[0])
        ctx.save_for_backward(rows, *between, low, inner.down, *inner.ups, outer.down, *outer.ups)
        ctx.layers, ctx.shape = layers, values.shape
        return found.view(*values.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        rows, gates, ups, low, low_of_down, inner_down, up_of_gate, up_of_up, outer_down, up_of_down = ctx.saved_tensors
        inner, outer = Small(inner_down, (up_of_gate, up_of_up)), Small(outer_down, (up_of_down,))
        between, through = _Between(gates, ups, low), ctx.needs_input_grad[0]
        slope = gradients[0].reshape(-1, gradients[0].shape[-1])
        of_rows, adapters = _back(ctx.layers, inner, outer, rows, between, low_of_down, slope, through=through)
        return of_rows.view(ctx.shape) if through else None, None, *adapters


class _InPieces(torch.autograd.Function):  # type: ignore[misc]
    """What it keeps is no saved tensor of autograd: a checkpoint around it would drop that, and compute it again."""

    @staticmethod
    def forward(ctx: Any, values: Any, layers: tuple[Adapted, ...], keep: Keep, *_adapters: Any) -> Any:
        rows = values.reshape(-1, values.shape[-1])
        ctx.give_back, ctx.layers, ctx.shape = keep(rows), layers, values.shape
        inner, outer = _small(layers, values.dtype)
        restored = _restored(layers, values.dtype)
        found: Any = None
        for begin, part in _pieces(rows):
            hidden = _Between.of(restored, inner, part).hidden(restored, inner)
            of_part = restored[2].weight.forward(hidden, hidden @ outer.down.t(), outer.ups[0])
            found = _put(found, begin, of_part, len(rows))
            del hidden, of_part  # before the next ones are made
        return found.view(*values.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        give_back, ctx.give_back = ctx.give_back, None  # the graph may live on, but what is kept need not
        rows, through = give_back(), ctx.needs_input_grad[0]
        slopes = gradients[0].reshape(-1, gradients[0].shape[-1])
        inner, outer = _small(ctx.layers, rows.dtype)
        restored, adapters = _restored(ctx.layers, rows.dtype), list[Any]()
        of_rows: Any = None
        for begin, part in _pieces(rows):
            between, slope = _Between.of(restored, inner, part), slopes[begin : begin + len(part)]
            of_part, found = _back(restored, inner, outer, part, between, None, slope, through=through)
            adapters = [one.add_(other) for one, other in zip(adapters, found, strict=True)] if adapters else found
            of_rows = _put(of_rows, begin, of_part, len(rows)) if through else None
            del between, of_part
        return of_rows.view(ctx.shape) if through else None, None, None, *adapters


def _small(layers: Sequence[Adapted], dtype: Any) -> tuple[Small, Small]:
    return Small.of(layers[:2], dtype), Small.of(layers[2:], dtype)


def _restored(layers: Sequence[Adapted], dtype: Any) -> list[Adapted]:
    """Layers whose weights are multiplied several times."""
    return [layer._replace(weight=layer.weight.restored(dtype)) for layer in layers]


def _pieces(rows: Any) -> list[tuple[int, Any]]:
    """Parts of `rows` of about one size, each with its begin."""
    size = -(-len(rows) // -(-len(rows) // PIECE))
    return [(begin, rows[begin : begin + size]) for begin in range(0, len(rows), size)]


def _put(found: Any, begin: int, part: Any, count: int) -> Any:
    """Write a part into `found`, which is made for `count` rows if it is None."""
    if len(part) == count:
        return part
    found = part.new_empty(count, part.shape[1]) if found is None else found
    found[begin : begin + len(part)] = part
    return found


def _parts(*layers: Adapted) -> list[Any]:
    return [part for layer in layers for part in (layer.a, layer.b)]

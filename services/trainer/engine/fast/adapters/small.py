"""The small matrices of adapters, in the type that is computed in: cast where they are needed, or all together after
each change of them, which launches a hundred times fewer kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from services.trainer.engine.fast.adapters.linears import Adapted

KEPT = "kept_small"
"""The attribute of the first layer's `a` that has what was cast for it and the others."""


class Small(NamedTuple):
    """The adapters of layers that read the same input, in the type that is computed in. `down`: (sum of ranks, inputs),
    of all; `ups`: (outputs, rank) of each, scaled."""

    down: Any
    ups: tuple[Any, ...]

    @classmethod
    def of(cls, layers: Sequence[Adapted], dtype: Any) -> Small:
        kept: _Kept | None = getattr(layers[0].a, KEPT, None)
        if kept is not None and kept.is_of(layers, dtype):
            return kept.small
        found = cls.room(layers, dtype)
        for layer, part in zip(layers, found.downs(layers), strict=True):
            part.copy_(layer.a)
        for layer, up in zip(layers, found.ups, strict=True):
            torch.mul(layer.b, layer.scale, out=up)  # one kernel for product and cast
        return found

    @classmethod
    def room(cls, layers: Sequence[Adapted], dtype: Any) -> Small:
        """One that is not filled yet."""
        first = layers[0].a
        down = first.new_empty(sum(layer.a.shape[0] for layer in layers), first.shape[1], dtype=dtype)
        return cls(down, tuple(torch.empty_like(layer.b, dtype=dtype) for layer in layers))

    def downs(self, layers: Sequence[Adapted]) -> Sequence[Any]:
        """The part of each layer in `down`."""
        parts: Sequence[Any] = self.down.split([layer.a.shape[0] for layer in layers])
        return parts

    def back(self, slopes: Sequence[Any]) -> Any:
        """The gradient by x Aᵀ of all layers, (tokens, sum of ranks), of those by the outputs, (tokens, outputs)."""
        backs = [slope @ up for slope, up in zip(slopes, self.ups, strict=True)]
        return backs[0] if len(backs) == 1 else torch.cat(backs, 1)


class Smalls:
    """Those of all `groups`, layers that read the same input. They are what `Small.of` finds until an adapter changes;
    after `renew`, again."""

    def __init__(self, groups: Sequence[Sequence[Adapted]], dtype: Any) -> None:
        self._kept = [_Kept(layers, dtype) for layers in groups]
        layers = [layer for group in groups for layer in group]
        self._sources = [layer.a.detach() for layer in layers], [layer.b.detach() for layer in layers]
        self._scales = [layer.scale for layer in layers]
        self._targets = (
            [part for kept in self._kept for part in kept.small.downs(kept.layers)],
            [up for kept in self._kept for up in kept.small.ups],
        )
        self.renew()

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def renew(self) -> None:
        """Cast all of them. Whoever changes an adapter in a way that torch does not count calls this afterwards."""
        if self._kept:
            torch._foreach_copy_(self._targets[0], self._sources[0])
            torch._foreach_copy_(self._targets[1], torch._foreach_mul(self._sources[1], self._scales))
        for kept in self._kept:
            kept.note()


class _Kept:
    """What was cast for `layers`, and for which state of them."""

    def __init__(self, layers: Sequence[Adapted], dtype: Any) -> None:
        self.layers, self.small = tuple(layers), Small.room(layers, dtype)
        self._parts = [part for layer in layers for part in (layer.a, layer.b)]
        self._versions: list[int] = []
        setattr(layers[0].a, KEPT, self)

    def note(self) -> None:
        self._versions = [part._version for part in self._parts]

    def is_of(self, layers: Sequence[Adapted], dtype: Any) -> bool:
        """Whether it is what `layers` have now."""
        parts = [part for layer in layers for part in (layer.a, layer.b)]
        return (
            self.small.down.dtype == dtype
            and len(parts) == len(self._parts)
            and all(map(lambda one, other: one is other, parts, self._parts))
            and [part._version for part in parts] == self._versions
        )

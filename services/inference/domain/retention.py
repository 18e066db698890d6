"""Decides which adapters on the disk are given up. All of them are in the object store, too, so a wrong decision
costs a download."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


def given_up(ages: Mapping[T, float], needed: Iterable[T], *, most: int, seconds: float) -> list[T]:
    """The adapters to give up, the least recently used first: those beyond `most`, and those that nobody has used for
    longer than `seconds`. `ages`: seconds since each was used last. Those that are `needed` stay, and do not count."""
    needed = set(needed)
    recent_first = sorted((adapter for adapter in ages if adapter not in needed), key=lambda adapter: ages[adapter])
    return [adapter for place, adapter in enumerate(recent_first) if place >= most or ages[adapter] > seconds][::-1]

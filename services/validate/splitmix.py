"""Mixes the bits of numbers, so that those that are nearly the same look like random ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def mixed(values: NDArray[Any]) -> NDArray[Any]:
    """Mix the bits of each value of 64 bits, in place, until every bit depends on all of them. Different values stay
    different.

    It is the finalizer of SplitMix64 (Steele et al. 2014)."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values

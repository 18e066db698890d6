"""One sequence of tokens, with a mask that says which of them are in the loss."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Example:
    """One sequence. `tokens`: (length,) int64 ids; `trained`: (length,) bool, True where the token is in the loss."""

    tokens: NDArray[np.int64]
    trained: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def trained_tokens(self) -> int:
        # The first token is never predicted, so it is never in the loss.
        return int(self.trained[1:].sum())

    def cut(self, most: int) -> Example:
        return Example(self.tokens[:most], self.trained[:most])


def example(ids: Sequence[int], trained: Sequence[bool]) -> Example:
    # an array of the standard library is made of a list several times faster than one of numpy
    tokens = np.frombuffer(array("q", ids or [0]), np.int64)[: len(ids)]
    return Example(tokens, np.frombuffer(bytearray(trained or [False]), np.bool_)[: len(ids)])

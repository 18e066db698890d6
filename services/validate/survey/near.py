"""Clusters of near-duplicates, from the signatures of all rows, in bounded memory.

The columns are temporary files: 84 bytes a row for the bands and 126 for the signatures. One band at a time is sorted;
rows that share its value are candidates, and join the first of them if their signatures agree.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.validate.survey.texts.signatures import BANDS, HALF, SIGNATURE

SIMILAR = 0.7
"""The least Jaccard similarity of two rows, as the mean of their prompts and answers. With one word of twenty changed,
texts have 0.86; with one of ten, 0.73."""
SIMILAR_HALF = 0.55
"""The least of either half."""
_BATCH = 8192


class Clusters:
    """Collects the rows of one or two files, and joins near-duplicates. A context manager: its files go with it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._bands = [self._file() for _ in range(BANDS)]
        self._signatures = self._file()
        self.rows = 0

    def __enter__(self) -> Clusters:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _file(self) -> Any:
        return self._stack.enter_context(tempfile.TemporaryFile(prefix="tunestream-near-"))

    def add(self, bands: bytes, signatures: bytes) -> None:
        """Add rows in order: their bands (uint32, rows x BANDS) and signatures (bytes, rows x SIGNATURE)."""
        columns = np.ascontiguousarray(np.frombuffer(bands, np.uint32).reshape(-1, BANDS).T)
        for file, column in zip(self._bands, columns, strict=True):
            file.write(column.tobytes())
        self._signatures.write(signatures)
        self.rows += columns.shape[1]

    def joined(self) -> NDArray[np.uint32]:
        """For each row the first row of its cluster; a row that is alone has itself. Deterministic.

        Memory: 20 bytes a row, and a batch of candidates."""
        parents = np.arange(self.rows, dtype=np.uint32)
        self._signatures.flush()
        for file in self._bands:
            file.seek(0)
            values = np.fromfile(file, np.uint32)
            order = np.argsort(values, kind="stable").astype(np.uint32)
            values = values[order]
            # a run of equal values: its first row is the one with which the others are compared
            same = np.flatnonzero(values[1:] == values[:-1]) + 1
            if not same.size:
                continue
            starts = np.maximum.accumulate(
                np.where(np.concatenate([[True], values[1:] != values[:-1]]), np.arange(len(values)), 0)
            )
            first, other = order[starts[same]], order[same]
            for begin in range(0, len(first), _BATCH):
                self._join(parents, first[begin : begin + _BATCH], other[begin : begin + _BATCH])
        # parents are always earlier rows, so one pass in order resolves chains
        for row in np.flatnonzero(parents != np.arange(self.rows)):
            parents[row] = parents[parents[row]]
        return parents

    def _join(self, parents: NDArray[np.uint32], first: NDArray[np.uint32], other: NDArray[np.uint32]) -> None:
        apart = parents[first] != parents[other]
        first, other = first[apart], other[apart]
        if not first.size:
            return
        agree = self._kept(first) == self._kept(other)
        halves = agree[:, :HALF].mean(axis=1), agree[:, HALF:].mean(axis=1)
        similar = (halves[0] + halves[1] >= 2 * SIMILAR) & (np.minimum(*halves) >= SIMILAR_HALF)
        for one, two in zip(first[similar].tolist(), other[similar].tolist(), strict=True):
            a, b = _root(parents, one), _root(parents, two)
            if a != b:
                parents[max(a, b)] = min(a, b)

    def _kept(self, rows: NDArray[np.uint32]) -> NDArray[np.uint8]:
        descriptor = self._signatures.fileno()
        read = b"".join(os.pread(descriptor, SIGNATURE, int(row) * SIGNATURE) for row in rows)
        return np.frombuffer(read, np.uint8).reshape(-1, SIGNATURE)


def _root(parents: NDArray[np.uint32], row: int) -> int:
    while (parent := int(parents[row])) != row:
        parents[row] = parents[parent]
        row = parent
    return row


def members(parents: NDArray[np.uint32]) -> tuple[array[int], array[int]]:
    """The rows that are not alone, and the first row of each one's cluster."""
    alone = np.bincount(parents, minlength=len(parents)) < 2 if len(parents) else np.zeros(0, bool)
    rows = np.flatnonzero(~alone[parents]) if len(parents) else np.zeros(0, np.int64)
    return array("I", rows.astype(np.uint32).tobytes()), array("I", parents[rows].astype(np.uint32).tobytes())

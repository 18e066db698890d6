"""Rows with one and the same prompt whose answers differ."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

_CHUNK = 2**20  # rows that are looked up at once


class Disagreement(NamedTuple):
    """A prompt with different answers. `lines`: the first line with each of the first different answers, in the order
    of the file. `answers`: how many different ones there are. `rows`: how many rows have the prompt."""

    lines: tuple[int, ...]
    answers: int
    rows: int


class Answers:
    """Remembers the prompt and the answer of every row by hashes: 16 bytes a row, at the end 8 more.

    Prompts are told apart by 64 bits. Two different answers to one prompt have the same 32 bits, and pass as one, in
    one of four billion cases.
    """

    def __init__(self) -> None:
        self._prompts, self._answers, self._lines = array("q"), array("I"), array("I")

    def add(self, prompt: int, answer: int, line: int) -> None:
        """Add a row; hashes of 64 bits, with their sign. Lines must ascend."""
        self._prompts.append(prompt)
        self._answers.append(answer & 0xFFFFFFFF)
        self._lines.append(line)

    def add_many(self, prompts: Sequence[int], answers: Sequence[int], lines: Sequence[int]) -> None:
        """The same for many rows."""
        self._prompts.extend(prompts)
        self._answers.frombytes(np.array(answers, np.int64).astype(np.uint32).tobytes())
        self._lines.extend(lines)

    def disagreements(self, most_lines: int) -> Iterator[Disagreement]:
        """Every prompt with more than one answer, in the order of the first lines. `most_lines`: of so many different
        answers the lines are named."""
        if not self._prompts:
            return
        prompts = np.frombuffer(self._prompts, np.int64)
        known = np.sort(prompts)
        repeated = np.unique(known[1:][known[1:] == known[:-1]])
        del known
        if not len(repeated):
            return
        rows, groups = [], []
        for begin in range(0, len(prompts), _CHUNK):
            some = prompts[begin : begin + _CHUNK]
            places = np.minimum(np.searchsorted(repeated, some), len(repeated) - 1)
            found = np.flatnonzero(repeated[places] == some)
            rows.append((found + begin).astype(np.uint32))
            groups.append(places[found].astype(np.uint32))
        row, group = np.concatenate(rows), np.concatenate(groups)
        del rows, groups
        # groups in the order of their first rows, and the rows of each in order
        firsts = np.full(len(repeated), len(prompts), np.uint32)
        np.minimum.at(firsts, group, row)
        order = np.argsort(firsts[group], kind="stable")
        same = zip(firsts[group[order]].tolist(), row[order].tolist(), strict=True)
        for _, members in groupby(same, key=lambda pair: pair[0]):
            lines: dict[int, int] = {}
            count = 0
            for _, place in members:
                count += 1
                lines.setdefault(self._answers[place], self._lines[place])
            if len(lines) > 1:
                yield Disagreement(tuple(lines.values())[:most_lines], len(lines), count)

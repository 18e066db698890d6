"""The figures of a dataset in `report.json`: what it is about, and how varied it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import Field

from shared.events import FrozenModel, TaskKind

SHOWN = 20
"""Lines that a figure names."""


class Lines(FrozenModel):
    """How many rows something is true of, and the lines of the first of them."""

    rows: int = 0
    lines: tuple[int, ...] = ()

    @classmethod
    def of(cls, lines: Sequence[int]) -> Self:
        """Those of all rows that it is true of."""
        return cls(rows=len(lines), lines=tuple(lines[:SHOWN]))

    def __str__(self) -> str:
        """`12 (lines 3, 9, 27 …)`"""
        if not self.lines:
            return f"{self.rows:,}"
        more = " …" if self.rows > len(self.lines[:5]) else ""
        return f"{self.rows:,} (line{'s' if self.rows > 1 else ''} {', '.join(map(str, self.lines[:5]))}{more})"


class Diversity(FrozenModel):
    """How varied the answers of the sample are. Low shares mean that rows say the same in the same words."""

    sample: int
    """Rows that were looked at."""
    vocabulary: int
    """Different words in prompts and answers."""
    distinct_1: float
    """Different words of the answers, of all their words (Li et al. 2016)."""
    distinct_2: float
    """Different pairs of neighbouring words, of all pairs."""


class Facts(FrozenModel):
    """What a file is about. Sizes are in characters, as pairs of (at least so many, rows), two for each doubling."""

    rows: int
    """Rows that can be read; the scan may still drop some."""
    task: TaskKind = "text"
    answers: dict[str, int] = Field(default_factory=dict)
    """Rows by what their answer is."""
    labels: dict[str, int] = Field(default_factory=dict)
    """Where the answers are labels: rows of each, the most frequent first."""
    languages: dict[str, int] = Field(default_factory=dict)
    """Rows by the language of their question (else of their answer). `unknown`: too short, or code."""
    mixed_languages: Lines = Lines()
    """The answer is in another language than the question."""
    refusals: Lines = Lines()
    flaws: dict[str, Lines] = Field(default_factory=dict)
    """Rows with a text that nobody would write on purpose, by the code of what is wrong with it."""
    personal_data: Lines = Lines()
    secrets: Lines = Lines()
    private_kinds: dict[str, int] = Field(default_factory=dict)
    """Private places by kind."""
    near_duplicates: Lines = Lines()
    """Rows that are nearly the same as an earlier one."""
    leaks: Lines = Lines()
    """Rows of the validation file that are nearly the same as one of the training file."""
    diversity: Diversity | None = None
    prompt_sizes: tuple[tuple[int, int], ...] = ()
    answer_sizes: tuple[tuple[int, int], ...] = ()
    long_answers: Lines = Lines()
    """Outliers: answers far longer than the others."""
    short_answers: Lines = Lines()

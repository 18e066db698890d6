"""A turn of the assistant, by which rows are linked: see `columns/links.py`."""

from __future__ import annotations

from typing import NamedTuple


class Turn(NamedTuple):
    """A turn of the assistant after everything that was said before it. `digest`: 64 bits of both; two turns that share
    it by accident only make one group of two. `trained`: the row teaches this turn. `asked`: a question comes before
    it."""

    digest: int
    trained: bool
    asked: bool = True

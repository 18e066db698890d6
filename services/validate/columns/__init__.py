"""What is remembered of every row of a file: a few bytes each, in arrays, because a file may have tens of millions.

It is beside the domain because it sorts with numpy.
"""

from __future__ import annotations

from services.validate.columns.answers import Answers, Disagreement
from services.validate.columns.digests import Digests
from services.validate.columns.heap import keep_large_arrays_mapped
from services.validate.columns.links import KEEP, Links
from services.validate.columns.split import assign, ranks_of

__all__ = ["KEEP", "Answers", "Digests", "Disagreement", "Links", "assign", "keep_large_arrays_mapped", "ranks_of"]

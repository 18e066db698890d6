"""Whether the server gives back what is trained: the comparison of one turn, and which rows are asked about."""

from __future__ import annotations

from services.validate.domain.served.comparison import Difference, Given, prompt_difference
from services.validate.domain.served.given_back import answer_difference
from services.validate.domain.served.sampling import sample
from services.validate.domain.served.turn import Turn

__all__ = ["Difference", "Given", "Turn", "answer_difference", "prompt_difference", "sample"]

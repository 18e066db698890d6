"""Whether to fine-tune at all: what is measured of a dataset, and what follows from it."""

from services.validate.domain.advice.facts import Facts, Kind, facts_of
from services.validate.domain.advice.samples import Sample, sample_of
from services.validate.domain.advice.verdict import Advice, Asked, Measured, Reason, Score, advise

__all__ = [
    "Advice",
    "Asked",
    "Facts",
    "Kind",
    "Measured",
    "Reason",
    "Sample",
    "Score",
    "advise",
    "facts_of",
    "sample_of",
]

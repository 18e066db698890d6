"""The rows whose questions are most like another one, by the words that they have in common: TF-IDF and cosine."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from services.validate.domain.advice.samples import Sample, folded
from shared.scoring.words import words


class Nearest:
    """An index of rows. Asking costs as much as the rows that share a word with the question."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples
        counted = [Counter(words(sample.question)) for sample in samples]
        documents = Counter(word for each in counted for word in each)
        self._weights = {word: math.log((1 + len(samples)) / (1 + n)) + 1 for word, n in documents.items()}
        self._places: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for row, each in enumerate(counted):
            for word, weight in self._unit(each).items():
                self._places[word].append((row, weight))

    def to(self, sample: Sample, count: int) -> list[Sample]:
        """The `count` nearest rows with other questions, the nearest last: that is where a model looks most."""
        scores: dict[int, float] = defaultdict(float)
        for word, weight in self._unit(Counter(words(sample.question))).items():
            for row, other in self._places.get(word, ()):
                scores[row] += weight * other
        own = folded(sample.question)
        ranked = sorted(scores, key=lambda row: (-scores[row], row))
        others = (self._samples[row] for row in ranked if folded(self._samples[row].question) != own)
        return [sample for _, sample in zip(range(count), others, strict=False)][::-1]

    def _unit(self, counted: Counter[str]) -> dict[str, float]:
        weighted = {word: n * self._weights[word] for word, n in counted.items() if word in self._weights}
        length = math.sqrt(sum(weight * weight for weight in weighted.values())) or 1.0
        return {word: weight / length for word, weight in weighted.items()}

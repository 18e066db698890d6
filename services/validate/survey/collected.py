"""The pieces of one file put together."""

from __future__ import annotations

from array import array
from collections import Counter
from itertools import pairwise
from typing import get_args

from services.validate.domain.statistics import doubling, in_order
from services.validate.domain.survey.facts import SHOWN, Diversity, Facts, Lines
from services.validate.domain.survey.surveyed import Surveyed
from services.validate.domain.survey.task import task_kind
from services.validate.survey.by_model import languages_by_model
from services.validate.survey.flawed import told
from services.validate.survey.part import Part
from services.validate.survey.texts.words import words_of
from shared.events import Checks, TaskKind
from shared.privacy import Spotted
from shared.scoring.labels import MAX_LABELS

DESCRIBED = 1000
"""Rows whose private places are described; the lines of all are known."""
MOST_SAMPLED = 4000
ASKED_OF_THE_MODEL = 200
FAR = 4.0
"""Standard deviations of the logarithm of the length from which on an answer is an outlier."""
_LONGEST, _SHORTEST = 50, 50


class Collected:
    """Adds up the parts of a file, in order."""

    def __init__(self) -> None:
        self.lines = 0
        self.rows = 0
        self.redacted = False
        self.near_lines = array("I")
        self._of = {name: array("I") for name in ("personal", "secret", "refusing", "mixed")}
        self._flawed, self._flaws = array("I"), array("I")
        self._labels_of_rows = array("I")
        self._private: dict[int, tuple[Spotted, ...]] = {}
        self._kinds: Counter[str] = Counter()
        self._answers: Counter[TaskKind] = Counter()
        self._labels: Counter[str] | None = Counter()
        self._languages: Counter[str] = Counter()
        self._sizes: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
        self._longest: list[tuple[int, int]] = []
        self._shortest: list[tuple[int, int]] = []
        self._sampled: list[tuple[int, str, str]] = []
        self._undecided: list[tuple[int, str]] = []

    def add(self, part: Part) -> None:
        """Add the next piece."""
        before = self.lines + 1
        for name, lines in self._of.items():
            lines.extend(before + line for line in array("I", getattr(part, name)))
        self._flawed.extend(before + line for line in array("I", part.flawed))
        self._flaws.frombytes(part.flaws)
        self.near_lines.extend(before + line for line in array("I", part.near_lines))
        for row in part.private:
            if len(self._private) < DESCRIBED:
                self._private[before + row.line] = tuple(Spotted(*place) for place in row.places)
        self._kinds.update(part.kinds)
        self._answers.update({kind: part.answers.get(kind, 0) for kind in get_args(TaskKind)})
        self._add_labels(part)
        self._languages.update(part.languages)
        for sizes, more in zip(self._sizes, (part.prompt_sizes, part.answer_sizes), strict=True):
            sizes.update(more)
        self._longest = sorted([*self._longest, *((size, before + line) for size, line in part.longest)])[-_LONGEST:]
        self._shortest = sorted([*self._shortest, *((size, before + line) for size, line in part.shortest)])[:_SHORTEST]
        room = MOST_SAMPLED - len(self._sampled)
        self._sampled += [(before + line, asked, told) for line, asked, told in part.sampled[:room]]
        self._undecided += [(before + line, text) for line, text in part.undecided]
        self.redacted = self.redacted or part.redacted is not None
        self.lines += part.lines
        self.rows += part.rows

    def _add_labels(self, part: Part) -> None:
        if self._labels is None:
            return
        if part.labels is not None:
            self._labels.update(part.labels)
            self._labels_of_rows.frombytes(part.row_labels)
        if part.labels is None or len(self._labels) > MAX_LABELS:
            # free text: nobody needs the number of each row
            self._labels, self._labels_of_rows = None, array("I")

    def surveyed(self, policies: Checks) -> Surveyed:
        """Everything but the near-duplicates."""
        task = task_kind(self._answers.total(), self._answers, self._labels)
        labels = self._labels if task == "labels" and self._labels else Counter()
        flawed, flaws, counted = told(self._flawed, self._flaws, self.rows, task)
        private = {
            "personal_data": self._lines("personal"),
            "secrets": self._lines("secret"),
        }
        facts = Facts(
            rows=self.rows,
            task=task,
            answers={kind: count for kind, count in self._answers.items() if count},
            labels=dict(labels.most_common()),
            languages=self._by_language(),
            mixed_languages=self._lines("mixed"),
            refusals=self._lines("refusing"),
            flaws=counted,
            private_kinds=dict(self._kinds.most_common()),
            diversity=self._diversity(),
            prompt_sizes=in_order(self._sizes[0]),
            answer_sizes=in_order(self._sizes[1]),
            long_answers=self._outliers(self._longest, 1),
            short_answers=self._outliers(self._shortest, -1),
            **private,
        )
        redacted = {name for name in private if getattr(policies, name) == "redact"}
        return Surveyed(
            facts,
            personal=self._of["personal"],
            secret=self._of["secret"],
            private=self._private,
            redacted=frozenset(redacted),
            refusing=self._of["refusing"],
            flawed=flawed,
            flaws=flaws,
            labels=self._labels_of_rows if labels else array("I"),
        )

    def _lines(self, name: str) -> Lines:
        return Lines.of(self._of[name])

    def _by_language(self) -> dict[str, int]:
        """Rows by language. Texts that are not clear are given to a model, as a sample that speaks for all of them."""
        found = Counter({name: rows for name, rows in self._languages.items() if name})
        unclear = self._languages[""]
        if unclear:
            asked = [text for _, text in self._undecided[:: max(1, len(self._undecided) // ASKED_OF_THE_MODEL)]]
            said = Counter(languages_by_model(asked[:ASKED_OF_THE_MODEL], known=found))
            for name, count in said.items():
                found[name] += round(unclear * count / max(said.total(), 1))
        return dict(found.most_common())

    def _diversity(self) -> Diversity | None:
        if not self._sampled:
            return None
        vocabulary: set[str] = set()
        ones: Counter[str] = Counter()
        twos: Counter[tuple[str, str]] = Counter()
        for _, question, answer in self._sampled:
            words = words_of(answer)
            ones.update(words)
            twos.update(pairwise(words))
            vocabulary.update(words, words_of(question))
        return Diversity(
            sample=len(self._sampled),
            vocabulary=len(vocabulary),
            distinct_1=round(len(ones) / max(ones.total(), 1), 4),
            distinct_2=round(len(twos) / max(twos.total(), 1), 4),
        )

    def _outliers(self, extremes: list[tuple[int, int]], sign: int) -> Lines:
        """The extremes that are far from the mean of all answers, on the logarithmic scale of the histogram."""
        sizes = self._sizes[1]
        rows = sizes.total()
        if rows < 30:
            return Lines()
        mean = sum(bin_ * count for bin_, count in sizes.items()) / rows
        deviation = max((sum(count * (bin_ - mean) ** 2 for bin_, count in sizes.items()) / rows) ** 0.5, 1.0)

        def far(bin_: int) -> bool:
            return bool(sign * (bin_ - mean) > FAR * deviation)

        count = sum(rows for bin_, rows in sizes.items() if far(bin_))
        lines = sorted(line for size, line in extremes if far(doubling(size)))
        return Lines(rows=count, lines=tuple(lines[:SHOWN]))

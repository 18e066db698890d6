"""What the rows of a piece are about: languages, labels, lengths, refusals and flaws."""

from __future__ import annotations

import zlib
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from services.validate.domain.statistics import doubling
from services.validate.domain.survey.flaws import flaws
from services.validate.domain.survey.refusals import refuses
from services.validate.domain.survey.said import Said
from services.validate.survey.part import Options, Part
from services.validate.survey.texts.hashed import Words, words_in
from services.validate.survey.texts.languages import languages_of
from shared.scoring.labels import MAX_LABELS, short_label_of

EXTREMES = 4
UNDECIDED = 40
"""Texts of one piece that are kept for a model of languages."""
_ASKED = 200
"""Characters of a question, in a conversation of several, whose language is looked at."""

Languages = tuple[str | None, str | None]
"""Of the question and of the answer."""


class About:
    """Collects it row by row. `labels`: where the checksum of a row's label is written, by the place of the row."""

    def __init__(self, options: Options, labels: array[int]) -> None:
        self._options = options
        self._row_labels = labels
        self._refusing, self._mixed, self._flawed, self._flaws = (array("I") for _ in range(4))
        self._kinds: Counter[str] = Counter()
        self._labels: Counter[str] | None = Counter()
        self._languages: Counter[str] = Counter()
        self._prompt_sizes: Counter[int] = Counter()
        self._answer_sizes: Counter[int] = Counter()
        self._lengths: list[tuple[int, int]] = []
        self._sampled: list[tuple[int, str, str]] = []
        self._undecided: list[tuple[int, str]] = []

    def languages(self, rows: Sequence[Said], words: Words) -> list[Languages]:
        """Of each of the rows. `words`: those of each one's prompt and answer."""
        found = languages_of([text for row in rows for text in (row.prompt, row.answer)], words)
        asked, told = found[::2], found[1::2]
        # a conversation: its last question counts
        later = [number for number, row in enumerate(rows) if len(row.question) != len(row.prompt)]
        if later:
            questions = [rows[number].question for number in later]
            of_questions = languages_of(questions, words_in([text[:_ASKED] for text in questions]))
            for number, language in zip(later, of_questions, strict=True):
                asked[number] = language
        return list(zip(asked, told, strict=True))

    def add(
        self, line: int, row: int, value: dict[str, Any], texts: Said, languages: Languages, words: int, different: int
    ) -> None:
        """A row. `words`, `different`: how many words its answer has, and how many different ones."""
        answer = texts.answer
        label = None if texts.calls else short_label_of(answer)
        kind = "tool_calls" if texts.calls else "structured" if _is_json(answer) else "labels" if label else "text"
        self._kinds[kind] += 1
        if kind == "labels" and label:
            self._add_label(row, label)
        self._prompt_sizes[doubling(len(texts.prompt))] += 1
        self._answer_sizes[doubling(len(answer))] += 1
        self._lengths.append((len(answer), line))
        if not texts.calls and refuses(answer):
            self._refusing.append(line)
        asked, told = languages[0], languages[1] if kind == "text" else None
        self._languages[asked or told or ""] += 1
        if asked is None and told is None and len(self._undecided) < UNDECIDED and texts.question.strip():
            self._undecided.append((line, texts.question[:200]))
        if asked and told and asked != told:
            self._mixed.append(line)
        if bits := flaws(value, texts, words, different, is_json=kind == "structured"):
            self._flawed.append(line)
            self._flaws.append(bits)

    def _add_label(self, row: int, label: str) -> None:
        self._row_labels[row] = zlib.crc32(label.encode())
        if self._labels is not None:
            self._labels[label] += 1
            if len(self._labels) > MAX_LABELS:
                self._labels = None

    def sample(self, line: int, raw: bytes, texts: Said) -> None:
        """Keep the row as it is, if it belongs to the sample."""
        if zlib.crc32(raw) < self._options.sample:
            self._sampled.append((line, texts.question[:1000], texts.answer[:1000]))

    def fill(self, part: Part) -> None:
        """Write what was found into the answer."""
        part.refusing, part.mixed = self._refusing.tobytes(), self._mixed.tobytes()
        part.flawed, part.flaws = self._flawed.tobytes(), self._flaws.tobytes()
        part.answers, part.languages = dict(self._kinds), dict(self._languages)
        part.labels = None if self._labels is None else dict(self._labels)
        part.prompt_sizes, part.answer_sizes = dict(self._prompt_sizes), dict(self._answer_sizes)
        self._lengths.sort()
        part.shortest, part.longest = self._lengths[:EXTREMES], self._lengths[-EXTREMES:]
        part.sampled, part.undecided = self._sampled, self._undecided


def _is_json(answer: str) -> bool:
    head = answer.lstrip()[:1]
    if head not in ("{", "["):
        return False
    try:
        msgspec.json.decode(answer)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return False
    return True

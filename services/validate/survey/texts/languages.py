"""The languages of many texts, by their scripts and their most common words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import lcm

import numpy as np

from services.validate.domain.survey.languages import LATIN_TEXT, LEAD, LEAST, WORDS, script_of
from services.validate.survey.texts.hashed import Index, Words, words_in
from services.validate.survey.texts.joined import Array


def languages_of(texts: Sequence[str], words: Words) -> list[str | None]:
    """The English name of each text's language, or None if it is not clear. `words`: those of the texts."""
    found = _by_words(words)
    for number, text in enumerate(texts):
        if not text.isascii() and (script := script_of(text)):
            found[number] = script
    return found


def _by_words(words: Words) -> list[str | None]:
    languages, index, weights, one = _table()
    places, at = index.find(words.hashes)
    owners = words.owners[places].astype(np.int64)
    first = places - words.begins[owners] < LATIN_TEXT
    scores = np.zeros((len(words.counts), len(languages)), np.int64)
    np.add.at(scores, owners[first], weights[at[first]])
    texts = np.arange(len(scores))
    # of two that are level, the later name, which comes first here
    best = scores.argmax(axis=1)
    most = scores[texts, best]
    scores[texts, best] = 0
    second = scores.max(axis=1)
    clear = (most >= LEAST * one) & (most >= LEAD * second)
    return [languages[number] if sure else None for number, sure in zip(best.tolist(), clear.tolist(), strict=True)]


@cache
def _table() -> tuple[list[str], Index, Array, int]:
    """The languages, the hashes of their words, the weight of each word for each language, and the weight of a word
    that no other language has."""
    languages = sorted(WORDS, reverse=True)
    words = sorted({word for each in WORDS.values() for word in each})
    hashes = words_in(words).hashes
    shared = np.array([[word in WORDS[language] for language in languages] for word in words], np.int64)
    counts = shared.sum(axis=1)
    one = lcm(*np.unique(counts).tolist())
    order = np.argsort(hashes)
    return languages, Index(hashes[order]), (shared * (one // counts)[:, None])[order], one

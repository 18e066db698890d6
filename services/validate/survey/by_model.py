"""The language of texts that function words do not settle: short ones, and languages without a list. By lingua, which
knows 75 languages."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lingua import LanguageDetector

LETTERS = 120
"""Of each text. More would not change the answer, and the model takes 2 ms for it."""
UNKNOWN = "unknown"
_SURE = 0.5
_LIKELY = 0.25
"""For a language that other rows of the file are in."""


def languages_by_model(texts: Sequence[str], known: Collection[str]) -> Iterator[str]:
    """The English name of each text's language, or `unknown`: no language is clearly likelier than the others, as with
    code, names and numbers. `known`: the languages of other rows.

    Memory: 70 MB from the first text on (the model of low accuracy; that of high accuracy takes 500). They are kept:
    reading them again for each file would take a third of a second, more than all else for a small file.
    """
    for text in texts:
        cut = text[:LETTERS]
        best = next(iter(_detector().compute_language_confidence_values(cut)), None) if _letters(cut) >= 8 else None
        name = best.language.name.title() if best else UNKNOWN
        yield name if best and best.value >= (_LIKELY if name in known else _SURE) else UNKNOWN


@cache
def _detector() -> LanguageDetector:
    from lingua import LanguageDetectorBuilder  # noqa: PLC0415  # takes memory, and most files do not need it

    return LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()


def _letters(text: str) -> int:
    return sum(each.isalpha() for each in text)

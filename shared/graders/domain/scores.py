"""The scores of graders that need no model, and the number in the answer of one that does."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shared.conversation.thoughts import parted
from shared.graders.domain.graders import StringCheck, TextSimilarity
from shared.scoring.bleu import bleu, gleu
from shared.scoring.fuzzy import fuzzy_match
from shared.scoring.rouge import rouge_l, rouge_n
from shared.scoring.words import normalized

MAX_COMPARED = 2**15
"""Characters of each text that is compared with another. Time grows with the square: so many take half a second."""
SCHEMA = {
    "type": "object",
    "properties": {"result": {"type": "number"}},
    "required": ["result"],
    "additionalProperties": False,
}
"""What a model that grades is to answer."""
LABELS = ("label", "result", "answer", "verdict")
"""Under which names a label is looked for; the first is what a model is asked for."""
_MAX_READ = 10_000
_NUMBER = r"[-+]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][-+]?[0-9]{1,3})?"
_STANDS_ALONE = re.compile(rf"(?<![\w.,])({_NUMBER})(?!\w)(?![.,][0-9])(?:\s*(?:/|out of)\s*{_NUMBER}(?!\w))?")
_NAMED = re.compile(
    rf"\b(?:score|result|reward|rating|grade)\b[\s\"'*_`:=]{{0,12}}(?:is|of)?[\s\"'*_`:=]{{0,12}}({_NUMBER})(?!\w)",
    re.IGNORECASE,
)
_NAMES = ("result", "score", "reward", "rating", "grade")


class TooLongToCompare(ValueError):
    """A text has more than `MAX_COMPARED` characters."""


def string_check(grader: StringCheck, given: str, reference: str) -> float:
    match grader.operation:
        case "eq":
            return float(given == reference)
        case "ne":
            return float(given != reference)
        case "like":
            return float(reference in given)
        case "ilike":
            return float(reference.casefold() in given.casefold())


def check_length(*texts: str) -> None:
    """Raises TooLongToCompare."""
    if any(len(text) > MAX_COMPARED for text in texts):
        raise TooLongToCompare


def text_similarity(grader: TextSimilarity, given: str, reference: str) -> float:
    """The score of every metric but those that need embeddings. Raises TooLongToCompare."""
    check_length(given, reference)
    for text in (given, reference):
        # one character may stand for eighteen, which the normalization brings out
        check_length(normalized(text))
    metric = grader.evaluation_metric
    if metric.startswith("rouge_") and metric != "rouge_l":
        return rouge_n(reference, given, int(metric.removeprefix("rouge_")))
    return min(1.0, _SCORES[metric](reference, given))  # a mean of logarithms may end a hair above 1


_SCORES: Mapping[str, Callable[[str, str], float]] = {
    "fuzzy_match": fuzzy_match,
    "bleu": bleu,
    "gleu": gleu,
    "rouge_l": rouge_l,
}


def score_in(answer: str) -> float | None:
    """The number that a model gives as its score: a JSON object with `result` (or `score`), a number alone, the last
    one that is called so ("Score: 0.8"), or the only one in the text. None: there is none, or it is not clear which.

    Of "4/5" and "4 out of 5" it is the 4. Thoughts before the answer do not count.
    """
    thoughts = parted(answer)
    if thoughts.cut:
        return None
    text = thoughts.answer.strip()[-_MAX_READ:]
    found = _in_json(text)
    if found is None:
        if named := _NAMED.findall(text):
            found = float(named[-1])
        elif len(alone := {float(number) for number in _STANDS_ALONE.findall(text)}) == 1:
            found = alone.pop()
    return found if found is not None and math.isfinite(found) else None


def label_in(answer: str, labels: Sequence[str]) -> str | None:
    """The label that a model gives: in a JSON object, alone, or the only one of them in the text. None: there is none,
    or it is not clear which. Case does not matter, unless labels differ by nothing else."""
    thoughts = parted(answer)
    if thoughts.cut:
        return None
    text = thoughts.answer.strip()[-_MAX_READ:]
    said = _label_in_json(text) or text
    for same in (lambda label: label, str.casefold):
        if exact := [label for label in labels if same(label) == same(said.strip(" \n\"'.*`"))]:
            return exact[0]
        found = {label for label in labels if re.search(rf"(?<!\w){re.escape(same(label))}(?!\w)", same(said))}
        if len(found) == 1:
            return found.pop()
    return None


def _label_in_json(text: str) -> str | None:
    start, end = text.find("{"), text.rfind("}")
    try:
        value: Any = json.loads(text[start : end + 1])
    except (ValueError, RecursionError):
        return None
    named = [value[name] for name in LABELS if isinstance(value, dict) and isinstance(value.get(name), str)]
    return named[0] if named else None


def _in_json(text: str) -> float | None:
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        return None
    try:
        value: Any = json.loads(text[start : end + 1])
        for name in _NAMES:
            held = value.get(name)
            if isinstance(held, int | float) and not isinstance(held, bool):
                return float(held)
            if isinstance(held, str) and re.fullmatch(_NUMBER, held.strip()):
                return float(held)
    except (ValueError, OverflowError, RecursionError):
        pass
    return None

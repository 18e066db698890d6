"""What the rows of a dataset say of the task: its kind, how many different examples there are, answers that contradict
each other, and answers that need what the prompt does not hold."""

from __future__ import annotations

import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from services.validate.domain.advice.samples import Sample, capitals_everywhere, facts_in, folded, pattern
from shared.events import FrozenModel

Kind = Literal["labels", "structured output", "tool calls", "free text"]

MOST_LABELS = 50
LABEL_CHARS = 60
ROWS_A_LABEL = 3
"""Answers are labels if they are short and repeat as often, on average."""
MOSTLY = 0.9
CALLED = 0.5
"""The share of rows with a call, for a task of tool calls: some questions need none."""
KNOWN_AFTER = 3
"""A fact in the answers to so many different questions is one of the task, such as a firm's own address, and is learnt.
One that stands in fewer answers has to be looked up."""
SHOWN = 500
"""So many answers say how a language writes its names."""
OPENING_WORDS = 2
COMMON = 0.05
"""The share of answers that begin or end alike, to count as a form."""


class Facts(FrozenModel):
    """What was measured of the rows. Shares are from 0 to 1."""

    rows: int
    """Those that were looked at, `of` so many."""
    of: int = 0
    kind: Kind
    classes: int = 0
    """Different labels."""
    smallest_class: int = 0
    patterns: int
    """Different questions, numbers aside: what repeats teaches nothing new."""
    contradicting: int = 0
    """Rows whose question has another answer elsewhere."""
    looked_up: float = 0.0
    """The share of rows whose answer holds facts that are neither in the prompt nor in other answers."""
    examples_of_facts: tuple[str, ...] = ()
    alike: float = 0.0
    """The share of answers that begin or end as many others do."""
    changed: float | None = None
    """Of the questions that an earlier version has, too, the share whose answer is another; None: there is none."""
    compared: int = 0


def facts_of(
    samples: Sequence[Sample],
    previous: Iterable[Sample] | None = None,
    of: int | None = None,
    *,
    quoting: bool = False,
) -> Facts:
    """Measure rows. `previous`: those of an earlier version of the dataset. `of`: how many rows there are, if these are
    an even share of them. `quoting`: a few facts of the answers are quoted; reports hold no text of rows."""
    if not samples:
        return Facts(rows=0, of=of or 0, kind="free text", patterns=0)
    kind, labels = _kind(samples)
    prompts = [folded(sample.prompt) for sample in samples]
    questions = [pattern(sample.question) for sample in samples]
    answers = defaultdict(set)
    for prompt, sample in zip(prompts, samples, strict=True):
        answers[prompt].add(_comparable(sample))
    contradicting = sum(len(answers[prompt]) > 1 for prompt in prompts)
    looked_up, facts = (0.0, ()) if kind == "labels" else _looked_up(samples, prompts, questions)
    changed, compared = _changed(answers, previous)
    return Facts(
        rows=len(samples),
        of=of or len(samples),
        kind=kind,
        classes=len(labels),
        smallest_class=min(labels.values(), default=0),
        patterns=len(set(questions)),
        contradicting=contradicting,
        looked_up=round(looked_up, 3),
        examples_of_facts=facts if quoting else (),
        alike=round(_alike(samples), 3),
        changed=None if changed is None else round(changed, 3),
        compared=compared,
    )


def _kind(samples: Sequence[Sample]) -> tuple[Kind, Counter[str]]:
    if sum(sample.called for sample in samples) >= CALLED * len(samples):
        return "tool calls", Counter()
    labels = Counter(folded(sample.answer) for sample in samples)
    short = all(len(label) <= LABEL_CHARS for label in labels)
    if short and len(labels) <= MOST_LABELS and len(samples) >= ROWS_A_LABEL * len(labels):
        return "labels", labels
    if sum(_is_json(sample.answer) for sample in samples) >= MOSTLY * len(samples):
        return "structured output", Counter()
    return "free text", Counter()


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _comparable(sample: Sample) -> str:
    if _is_json(sample.answer):
        with contextlib.suppress(RecursionError):
            return json.dumps(json.loads(sample.answer), sort_keys=True)
    return folded(sample.answer)


def _looked_up(
    samples: Sequence[Sample], prompts: Sequence[str], asked: Sequence[str]
) -> tuple[float, tuple[str, ...]]:
    """The share of rows that need a fact from elsewhere, and a few of these facts."""
    names = not capitals_everywhere(" ".join(sample.answer for sample in samples[:SHOWN]))
    found = [facts_in(sample.answer, names=names) for sample in samples]
    questions: dict[str, set[str]] = defaultdict(set)
    for question, facts in zip(asked, found, strict=True):
        for fact in facts:
            questions[fact].add(question)
    needing, shown = 0, list[str]()
    for prompt, facts in zip(prompts, found, strict=True):
        rare = sorted(each for each in facts if len(questions[each]) < KNOWN_AFTER and each.lower() not in prompt)
        needing += bool(rare)
        shown += rare[:1] if len(shown) < 5 else []
    return needing / len(samples), tuple(shown)


def _alike(samples: Sequence[Sample]) -> float:
    """The share of answers with a common opening or ending."""
    ends = []
    for sample in samples:
        words = pattern(sample.answer).split()
        ends.append((" ".join(words[:OPENING_WORDS]), " ".join(words[-OPENING_WORDS:])))
    openings, endings = (Counter(each[side] for each in ends) for side in (0, 1))
    least = max(2.0, COMMON * len(samples))
    return sum(openings[one] >= least or endings[other] >= least for one, other in ends) / len(samples)


def _changed(answers: dict[str, set[str]], previous: Iterable[Sample] | None) -> tuple[float | None, int]:
    if previous is None:
        return None, 0
    before: dict[str, set[str]] = defaultdict(set)
    for sample in previous:
        before[folded(sample.prompt)].add(_comparable(sample))
    common = [prompt for prompt in answers if prompt in before]
    if not common:
        return None, 0
    return sum(answers[prompt].isdisjoint(before[prompt]) for prompt in common) / len(common), len(common)

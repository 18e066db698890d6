"""The verdict: fine-tune, prompt, retrieve or more data, each reason with its number, and what is not known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from services.validate.domain.advice.facts import Facts
from shared.events import FrozenModel

Verdict = Literal["fine-tune", "prompt", "retrieve", "more data", "fine-tune + retrieve"]
Pace = Literal["never", "yearly", "monthly", "weekly", "daily", "hourly"]

LEAST_ROWS = {"labels": 50, "structured output": 100, "tool calls": 100, "free text": 100}
ROWS_A_CLASS = 10
"""Different examples that a task of this kind needs; of labels, so many of each at least."""
MOST_CONTRADICTING = 0.05
"""What more contradicts itself than this cannot be learnt better."""
LOOKED_UP, CHANGED = 0.3, 0.1
FORM = 0.5
FAST: tuple[Pace, ...] = ("weekly", "daily", "hourly")
MANY, FEW = 10_000, 100
"""Requests a day from which a short prompt and a small model save more than a training costs; and up to which they do
not."""
ENOUGH = {"accuracy": 0.9, "json_fields": 0.9, "tool_calls": 0.9, "rouge_l": 0.6}
"""The score of a prompt, at the lower end of its interval, at which little is left to be trained."""


class Score(FrozenModel):
    """A mean with its interval at 95 %."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


class Measured(FrozenModel):
    """What a model answers without a training. `examples`: rows that were asked; `shots`: examples in each prompt."""

    model: str
    metric: str
    examples: int
    zero_shot: Score
    few_shot: Score | None = None
    shots: int = 0


class Asked(FrozenModel):
    """What cannot be measured, and only the user knows; None: unknown."""

    requests_per_day: int | None = None
    needs_sources: bool | None = None
    changes: Pace | None = None


class Reason(FrozenModel):
    """`speaks_for`: a part of a verdict."""

    speaks_for: Literal["fine-tune", "prompt", "retrieve", "more data"]
    words: str


class Advice(FrozenModel):
    """What to do with a dataset. `reasons` begin with those for the verdict."""

    verdict: Verdict
    reasons: tuple[Reason, ...]
    not_measured: tuple[str, ...]
    facts: Facts
    measured: Measured | None = None
    asked: Asked = Asked()


def advise(facts: Facts, asked: Asked | None = None, measured: Measured | None = None) -> Advice:
    """Decide by what is known."""
    asked = asked or Asked()
    reasons = [*_for_data(facts), *_for_retrieval(facts, asked), *_for_prompts(measured, asked), *_for_training(facts)]
    if measured is not None and not _is_enough(measured):
        reasons.append(_headroom(measured))
    if _is_many(asked):
        words = f"{asked.requests_per_day:,} requests a day: a small tuned model needs no examples in each prompt"
        reasons.append(Reason(speaks_for="fine-tune", words=words))
    verdict = _verdict(facts, asked, measured)
    parts = verdict.split(" + ")
    return Advice(
        verdict=verdict,
        reasons=tuple(sorted(reasons, key=lambda reason: reason.speaks_for not in parts)),
        not_measured=tuple(_unknown(facts, asked, measured)),
        facts=facts,
        measured=measured,
        asked=asked,
    )


def need(facts: Facts) -> int:
    """How many different examples the task needs."""
    return max(LEAST_ROWS[facts.kind], ROWS_A_CLASS * facts.classes)


def _verdict(facts: Facts, asked: Asked, measured: Measured | None) -> Verdict:
    if _contradicts(facts):
        return "more data"
    enough = facts.patterns >= need(facts) and not _small_class(facts)
    prompts_do = measured is not None and _is_enough(measured) and not _is_many(asked)
    if any(_for_retrieval(facts, asked)):
        return "fine-tune + retrieve" if enough and _has_form(facts) and not prompts_do else "retrieve"
    if prompts_do:
        return "prompt"
    if not enough:
        rare = asked.requests_per_day is not None and asked.requests_per_day <= FEW
        return "prompt" if rare else "more data"
    return "fine-tune"


# --- reasons ------------------------------------------------------------------------------------------------------


def _for_data(facts: Facts) -> Iterator[Reason]:
    if _contradicts(facts):
        share = facts.contradicting / facts.rows
        words = (
            f"{facts.contradicting:,} of {facts.rows:,} rows ({share:.0%}) ask what another row answers otherwise: "
            "settle which answer is right"
        )
        yield Reason(speaks_for="more data", words=words)
    if facts.patterns < need(facts):
        words = f"{facts.patterns:,} different examples, and {facts.kind} needs about {need(facts):,}"
        yield Reason(speaks_for="more data", words=words)
    if _small_class(facts):
        words = (
            f"the smallest of {facts.classes} labels has {facts.smallest_class} rows, and needs about {ROWS_A_CLASS}"
        )
        yield Reason(speaks_for="more data", words=words)


def _for_retrieval(facts: Facts, asked: Asked) -> Iterator[Reason]:
    if facts.looked_up >= LOOKED_UP:
        quoted = ", ".join(facts.examples_of_facts[:3])
        shown = f" ({quoted})" if quoted else ""
        words = f"{facts.looked_up:.0%} of the answers hold facts that the prompt does not{shown}: look them up"
        yield Reason(speaks_for="retrieve", words=words)
    if facts.changed is not None and facts.changed >= CHANGED:
        words = (
            f"{facts.changed:.0%} of {facts.compared:,} questions of the earlier version have another answer now: "
            "what is trained would be out of date"
        )
        yield Reason(speaks_for="retrieve", words=words)
    if asked.changes in FAST:
        words = f"the answers change {asked.changes}: a document is replaced sooner than a model is trained"
        yield Reason(speaks_for="retrieve", words=words)
    if asked.needs_sources:
        yield Reason(speaks_for="retrieve", words="sources are to be shown, and a tuned model has none")


def _for_prompts(measured: Measured | None, asked: Asked) -> Iterator[Reason]:
    if measured is not None and _is_enough(measured):
        best, how = _best(measured)
        words = (
            f"{measured.model} reaches {measured.metric} {best} {how} on {measured.examples} rows, at least "
            f"{ENOUGH[measured.metric]:g}: little is left to be trained"
        )
        yield Reason(speaks_for="prompt", words=words)
    if asked.requests_per_day is not None and asked.requests_per_day <= FEW:
        words = f"{asked.requests_per_day:,} requests a day: a longer prompt costs less than a training"
        yield Reason(speaks_for="prompt", words=words)


def _for_training(facts: Facts) -> Iterator[Reason]:
    if facts.patterns >= need(facts) and not _small_class(facts) and not _contradicts(facts):
        words = f"{facts.patterns:,} different examples of {facts.kind}, and about {need(facts):,} are needed"
        yield Reason(speaks_for="fine-tune", words=words)
    if facts.kind != "free text":
        words = f"the answers have a fixed form ({_form(facts)}), which a training teaches reliably"
        yield Reason(speaks_for="fine-tune", words=words)
    elif facts.alike >= FORM:
        words = f"{facts.alike:.0%} of the answers begin or end as many others do: a style, which a training teaches"
        yield Reason(speaks_for="fine-tune", words=words)


def _form(facts: Facts) -> str:
    return f"{facts.classes} labels" if facts.kind == "labels" else facts.kind


def _headroom(measured: Measured) -> Reason:
    best, how = _best(measured)
    words = (
        f"{measured.model} reaches only {measured.metric} {best} {how} on {measured.examples} rows: there is room above"
    )
    return Reason(speaks_for="fine-tune", words=words)


# --- conditions ---------------------------------------------------------------------------------------------------


def _contradicts(facts: Facts) -> bool:
    """Two good texts may answer one question; two labels may not."""
    return facts.kind != "free text" and facts.contradicting > MOST_CONTRADICTING * max(1, facts.rows)


def _small_class(facts: Facts) -> bool:
    return facts.kind == "labels" and facts.smallest_class < ROWS_A_CLASS


def _has_form(facts: Facts) -> bool:
    return facts.kind != "free text" or facts.alike >= FORM


def _is_many(asked: Asked) -> bool:
    return asked.requests_per_day is not None and asked.requests_per_day >= MANY


def _best(measured: Measured) -> tuple[Score, str]:
    few = measured.few_shot
    if few is not None and few.low > measured.zero_shot.low:
        return few, f"with the {measured.shots} nearest examples in the prompt"
    return measured.zero_shot, "without examples"


def _is_enough(measured: Measured) -> bool:
    return _best(measured)[0].low >= ENOUGH[measured.metric]


def _unknown(facts: Facts, asked: Asked, measured: Measured | None) -> Iterator[str]:
    if facts.of > facts.rows:
        yield f"more than {facts.rows:,} of the {facts.of:,} rows: an even share was looked at, so pairs may be missed"
    if measured is None:
        yield "what a model answers without a training, with and without examples in its prompt (--endpoint, --model)"
    if facts.changed is None and asked.changes is None:
        yield "how fast the answers change (--previous FILE, --changes weekly)"
    if asked.requests_per_day is None:
        yield "how many requests there are (--requests-per-day)"
    if asked.needs_sources is None:
        yield "whether sources are to be shown (--needs-sources)"

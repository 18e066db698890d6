"""Quality, speed and price of the rivals beside those of the tuned model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from services.evaluator.domain.answers import Answer, Usage, usage
from services.evaluator.domain.cost import Speed, per_thousand, speed_of
from services.evaluator.domain.evaluation import Evaluation
from services.evaluator.domain.examples import Example
from services.evaluator.evaluate import score
from services.evaluator.grading.graders import Grades
from services.evaluator.statistics.macro_f1 import MacroF1
from services.evaluator.statistics.sign_flips import Figure, intervals
from shared.events import FrozenModel, Interval, Price, Rival

AT_A_TIME = 4
"""How many answers are asked for at a time of a rival, and of the tuned model while it is timed beside it."""
TIMED = 24
"""How many answers of the tuned model are streamed to time their first token."""


@dataclass
class Asked:
    """A rival's answers to the test rows, or why there are none."""

    rival: Rival
    part: str = ""
    """As its answers are kept."""
    answers: list[Answer] = field(default_factory=list)
    trouble: str = ""


class RivalResult(FrozenModel):
    """One rival. `over` is the tuned model minus the rival, by metric."""

    name: str
    model: str
    trouble: str = ""
    """Why it was not measured."""
    scores: Mapping[str, float] = {}
    over: Mapping[str, Interval] = {}
    speed: Speed | None = None
    usage: Usage | None = None
    per_thousand: float | None = None
    """The price of 1,000 answers."""
    saving: float | None = None
    """The share of it that the tuned model saves; negative if it costs more."""


class Comparison(FrozenModel):
    """All rivals, and the tuned model as it was measured beside them."""

    speed: Speed | None
    per_thousand: float | None
    rivals: tuple[RivalResult, ...]


def compare(
    examples: Sequence[Example],
    evaluation: Evaluation,
    timed: Sequence[Answer],
    asked: Sequence[Asked],
    *,
    schema: Mapping[str, Any] | None,
    price: Price | None,
    seed: int,
    grades: Grades,
) -> Comparison:
    """Score the rivals as the tuned model was scored, with the `grades` of the job's graders. `timed`: streamed answers
    of the tuned model."""
    ours = per_thousand(price, [row.answers["tuned"].answer for row in evaluation.rows], AT_A_TIME)
    if price is not None and price.per_hour:
        ours = per_thousand(price, timed, AT_A_TIME)
    return Comparison(
        speed=speed_of(timed),
        per_thousand=ours,
        rivals=tuple(_result(one, examples, evaluation, schema, ours, seed, grades) for one in asked),
    )


def _result(
    asked: Asked,
    examples: Sequence[Example],
    evaluation: Evaluation,
    schema: Mapping[str, Any] | None,
    ours: float | None,
    seed: int,
    grades: Grades,
) -> RivalResult:
    about = {"name": asked.rival.name, "model": asked.rival.model}
    if asked.trouble:
        return RivalResult(**about, trouble=asked.trouble)
    kinds = evaluation.task.kinds(evaluation.metric)
    theirs = score(examples, asked.answers, evaluation.task, kinds, schema)
    theirs = [{**row, **more} for row, more in zip(theirs, grades[asked.part], strict=True)]
    tuned = [row.answers["tuned"].scores for row in evaluation.rows]
    pairs = list(zip(tuned, theirs, strict=True))
    gains = {name: np.array([mine[name] - other[name] for mine, other in pairs]) for name in theirs[0]}
    figures = {name: Figure(values, (-1.0, 1.0)) for name, values in gains.items()}
    scores = {name: sum(row[name] for row in theirs) / len(theirs) for name in theirs[0]}
    if kinds.labels:
        references = [example.reply().text for example in examples]
        rival = MacroF1(references, [answer.reply().text for answer in asked.answers])
        own = MacroF1(references, [row.answers["tuned"].answer.reply().text for row in evaluation.rows])
        figures["macro_f1"], scores["macro_f1"] = own.minus(rival), rival.score()
    confidence = evaluation.over_base[evaluation.metric].confidence
    price = per_thousand(asked.rival.price, asked.answers, AT_A_TIME)
    return RivalResult(
        **about,
        scores=scores,
        over=intervals(figures, len(examples), confidence=confidence, seed=seed),
        speed=speed_of(asked.answers),
        usage=usage(asked.answers),
        per_thousand=price,
        saving=None if not price or ours is None else 1 - ours / price,
    )

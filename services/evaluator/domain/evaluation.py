"""What an evaluation found: scores, intervals and the gate's verdict, as `report.json` holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.evaluator.domain.answers import Answer, Usage, Variant, usage
from services.evaluator.domain.examples import Example
from services.evaluator.domain.gate import checks
from services.evaluator.domain.gate.checks import Check, Forgetting, Leak, Slice
from services.evaluator.domain.gate.echo import echoes, question_of
from services.evaluator.domain.gate.verdict import Measured, Verdict, gate_metric, judge
from services.evaluator.domain.kinds import Task
from services.evaluator.domain.kinds.confusion import Confusion, confusion
from services.evaluator.domain.kinds.structure import document_of
from services.evaluator.domain.scoring.stopping import fair_stop_share, stop_share
from shared.events import FrozenModel, Gate, GateChecks, Interval

Scores = Mapping[Variant, Sequence[Mapping[str, float]]]
"""By variant, for each example: metric -> score."""


class ScoredAnswer(FrozenModel):
    """An answer and its scores by metric."""

    answer: Answer
    scores: dict[str, float]


class Row(FrozenModel):
    """One example with all its answers. `gain` is tuned minus base on the gate's metric (macro F1: on accuracy)."""

    example: Example
    answers: dict[Variant, ScoredAnswer]
    gain: float


class Evaluation(FrozenModel):
    """Everything that was measured. Score keys are metric names; scores lie between 0 and 1."""

    metric: str
    metric_reason: str
    labels: tuple[str, ...] | None
    task: Task = Task()
    """What the references are."""
    confusion: Mapping[Variant, Confusion] = {}
    """Of labels: by variant, which was given for which."""
    examples: int
    scores: dict[Variant, dict[str, float]]
    intervals: dict[Variant, dict[str, Interval]]
    over_base: dict[str, Interval]
    over_few_shot: dict[str, Interval]
    over_champion: Mapping[str, Interval] = {}
    """Empty if the alias named no model, or it could not be asked."""
    champion: str | None = None
    """The exact id of the model that the alias named."""
    slices: tuple[Slice, ...] = ()
    forgetting: Forgetting | None = None
    leaks: tuple[Leak, ...] | None = None
    checks: tuple[Check, ...] = ()
    """What the checks of the gate found, beside the difference to the base."""
    usage: dict[Variant, Usage]
    verdict: Verdict
    rows: tuple[Row, ...]


class Intervals(FrozenModel):
    """Intervals by metric: around the scores of each variant, and around the scores of the tuned model minus those of
    another variant."""

    variants: dict[Variant, dict[str, Interval]]
    over_base: dict[str, Interval]
    over_few_shot: dict[str, Interval]
    """Empty if there was no few-shot variant."""
    over_champion: Mapping[str, Interval] = {}


class Found(FrozenModel):
    """What was found out beside the scores of the test rows, for the checks of the gate."""

    champion: str | None = None
    """The exact id of the model that the alias names; None: it names none, or it is the tuned model itself."""
    champion_trouble: str = ""
    """Why it was not asked, if it was not."""
    slices: tuple[Slice, ...] = ()
    forgetting: Forgetting | None = None
    leaks: tuple[Leak, ...] | None = None


def conclude(
    examples: Sequence[Example],
    answers: Mapping[Variant, Sequence[Answer]],
    scores: Scores,
    intervals: Intervals,
    *,
    task: Task,
    gate: Gate,
    found: Found,
    room: int | None = None,
    test_wanted: bool = False,
) -> Evaluation:
    """Let the gate decide, and build the document with everything that was measured.

    `answers` and `scores` have an entry per example, in the order of `examples`. `room` and `test_wanted`: see
    `Measured`.
    """
    used = {variant: usage(answers[variant]) for variant in scores}
    cut = [answer for variant in scores for answer in answers[variant] if answer.cut_in_thoughts]
    metric, metric_reason = gate_metric(gate, task)
    rows = _rows(examples, answers, scores, gain_on="accuracy" if metric == "macro_f1" else metric)
    totals = {
        variant: {
            **{name: interval.mean for name, interval in found.items()},
            "stop_share": stop_share(answers[variant]),
        }
        for variant, found in intervals.variants.items()
    }
    judged = _checks(examples, answers, scores, gate.checks, task, found, used, intervals.over_champion, metric)
    measured = Measured(
        metric=metric,
        examples=len(examples),
        changed=sum(row.gain != 0 for row in rows) if gate.min_delta >= 0 and metric != "macro_f1" else None,
        base=totals["base"][metric],
        tuned=totals["tuned"][metric],
        over_base=intervals.over_base[metric],
        few_shot=totals["few_shot"][metric] if "few_shot" in totals else None,
        over_few_shot=intervals.over_few_shot.get(metric),
        stop_share=fair_stop_share([example.reply().text for example in examples], answers["tuned"]),
        refused=used["tuned"].refused,
        cut_in_thoughts={variant: one.cut_in_thoughts for variant, one in used.items()},
        room=room,
        context_full=bool(cut) and all(0 < answer.completion_tokens < (room or 0) for answer in cut),
        test_wanted=test_wanted,
        checks=judged,
    )
    return Evaluation(
        metric=metric,
        metric_reason=metric_reason,
        labels=task.labels,
        task=task,
        confusion=_confusions(examples, answers, task.labels) if task.labels and examples else {},
        examples=len(examples),
        scores=totals,
        intervals=intervals.variants,
        over_base=intervals.over_base,
        over_few_shot=intervals.over_few_shot,
        over_champion=intervals.over_champion,
        champion=found.champion,
        slices=found.slices,
        forgetting=found.forgetting,
        leaks=found.leaks,
        checks=judged,
        usage=used,
        verdict=judge(gate, measured),
        rows=rows,
    )


def _checks(
    examples: Sequence[Example],
    answers: Mapping[Variant, Sequence[Answer]],
    scores: Scores,
    policy: GateChecks,
    task: Task,
    found: Found,
    used: Mapping[Variant, Usage],
    over_champion: Mapping[str, Interval],
    metric: str,
) -> tuple[Check, ...]:
    if not examples:
        return ()
    tuned = [answer.reply().text for answer in answers["tuned"]]
    repeats = [(echoes(question_of(example), example.reply().text)) for example in examples]
    echoed = sum(
        not repeat and echoes(question_of(example), text)
        for example, text, repeat in zip(examples, tuned, repeats, strict=True)
    )
    wanted = [index for index, example in enumerate(examples) if document_of(example.reply().text) is not None]
    return (
        checks.on_slices(policy, found.slices, metric),
        checks.on_champion(policy, found.champion, over_champion.get(metric), found.champion_trouble, metric),
        checks.on_forgetting(policy, found.forgetting, task),
        checks.on_echo(policy, echoed, sum(repeats), len(examples)),
        checks.on_json(policy, sum(document_of(tuned[index]) is None for index in wanted), len(wanted), task),
        checks.on_leaks(policy, found.leaks),
        checks.on_latency(policy, used["base"], used["tuned"]),
    )


def _rows(
    examples: Sequence[Example], answers: Mapping[Variant, Sequence[Answer]], scores: Scores, *, gain_on: str
) -> tuple[Row, ...]:
    return tuple(
        Row(
            example=example,
            answers={
                variant: ScoredAnswer(answer=answers[variant][index], scores=dict(scores[variant][index]))
                for variant in scores
            },
            gain=scores["tuned"][index][gain_on] - scores["base"][index][gain_on],
        )
        for index, example in enumerate(examples)
    )


def _confusions(
    examples: Sequence[Example], answers: Mapping[Variant, Sequence[Answer]], labels: tuple[str, ...]
) -> dict[Variant, Confusion]:
    references = [example.reply().text for example in examples]
    return {
        variant: confusion(references, [answer.reply().text for answer in given], labels)
        for variant, given in answers.items()
    }

"""Evaluations for pages: one with everything that a report may hold, one of labels, and one of many rows."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from services.evaluator.domain.answers import Answer, Variant
from services.evaluator.domain.cost import Speed
from services.evaluator.domain.examples import Example
from services.evaluator.domain.gate.checks import Leak
from services.evaluator.domain.kinds.labels import find_labels
from services.evaluator.domain.questions.edge_prompts import EDGE_PROMPTS, EdgeResult, own_prompts
from services.evaluator.evaluate import Beside, evaluate
from services.evaluator.grading.graders import Grading
from services.evaluator.grading.pairwise import Pair, Pairwise
from services.evaluator.report import Report
from services.evaluator.rivals.compare import Comparison, RivalResult
from services.trainer.engine.messages import StepRow
from services.trainer.engine.report.curves import draw
from shared.events import Gate, Interval
from tests.support.data.jobs import make_training
from tests.support.data.reports import HOSTILE, make_report

RIGHT = "right answer here"
SAID: tuple[tuple[str, str, str], ...] = (
    ("Where is my order?", "no", RIGHT),
    ("Send it back.", RIGHT, "no"),
    ("Hello", "no", "no"),
    ("Is the shop open?", "no", "right answer"),
    ("The parcel\n  from Oslo has not come.", RIGHT, "right answer"),
    ("A piano that was tuned by hand.", RIGHT, RIGHT),
    (HOSTILE, "no", HOSTILE),
    ("Track it.", "no", '<tool_call>{"name": "track", "arg</tool_call>'),
)
"""Prompt, answer of the base and of the tuned model, on lines 1 to 8. Every reference is `RIGHT`."""
TOOL = {"type": "function", "function": {"name": "track"}}


def _prompt(line: int, text: str) -> tuple[dict[str, Any], ...]:
    call = {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "look", "arguments": '{"order": 1}'}}]}
    asked = {"role": "user", "content": text}
    return (asked, call, {"role": "tool", "content": "it is here"}) if line == len(SAID) else (asked,)


def _stopped(text: str) -> Answer:
    return Answer(text=text, finish_reason="stop", prompt_tokens=1_200, completion_tokens=34, latency_seconds=1.25)


def _gain(mean: float, half: float = 0.1) -> Interval:
    return Interval(mean=mean, low=mean - half, high=mean + half, confidence=0.95)


def everything() -> Report:
    """A report with all its parts, on the rows of `SAID`."""
    examples = [
        Example(
            line=line,
            messages=_prompt(line, text),
            reference=RIGHT,
            tools=(TOOL,) if line == len(SAID) else (),
            metadata={
                "sort": "ab"[line % 2],
                "from": "a shop whose name is as long as names of shops are, now and then",
            },
        )
        for line, (text, _, _) in enumerate(SAID, 1)
    ]
    few = [_stopped(base).model_copy(update={"fallback": 2}) for _, base, _ in SAID]
    champion = [_stopped(RIGHT), Answer(error=HOSTILE), *map(_stopped, ["no"] * (len(SAID) - 2))]
    answers: dict[Variant, list[Answer]] = {
        "base": [_stopped(base) for _, base, _ in SAID],
        "few_shot": few,
        "tuned": [_stopped(tuned) for _, _, tuned in SAID],
        "champion": champion,
    }
    gate = Gate(metric="rouge_l", promote="always", checks={"slices": "report", "leaks": "report"})  # type: ignore[arg-type]
    leak = Leak(kind="email", where="test line 3", train_lines=(4, 9))
    beside = Beside(champion="ft:base:org::older", leaks=(leak,))
    evaluation = evaluate(examples, answers, labels=None, gate=gate, seed=0, beside=beside)
    edges = [EdgeResult(prompt=prompt, base=_stopped("Yes."), tuned=_stopped("No.")) for prompt in EDGE_PROMPTS]
    edges[1] = edges[1].model_copy(update={"base": Answer(error="refused"), "tuned": Answer(finish_reason="stop")})
    cut = Answer(text="on and on " * 400, finish_reason="length")
    edges[2] = edges[2].model_copy(update={"base": cut, "tuned": Answer(cut_in_thoughts=True, finish_reason="length")})
    own = EdgeResult(prompt=own_prompts([HOSTILE])[0], base=_stopped("A base."), tuned=cut)
    return make_report(rows=1).model_copy(
        update={
            "gate": gate,
            "evaluation": evaluation,
            "edges": tuple(edges),
            "own": (own,),
            "few_shot_lines": (3, 17, 20),
            "remedies": ("Set n_epochs to 2.", HOSTILE),
            "training": make_training(
                model="ft:acme/a-base-model-with-a-long-name-8b-instruct:organization:support-answers:abcdefgh",
                base="acme/a-base-model-with-a-long-name-8b-instruct",
                overfitting={"verdict": "overfitting", "reason": "the validation loss rose from step 40 on"},
                valid_loss=1.4,
            ),
            "grading": Grading(failed={"grader:style": {"rate_limit_exceeded": 2}}, asked=16),
            "prices": {"base": 0.4, "tuned": 0.2},
            "rivals": Comparison(
                speed=Speed(answers=8, first_token_median=0.2, total_median=1.1, total_p95=2.0),
                per_thousand=0.2,
                rivals=(
                    RivalResult(
                        name="the-big-one",
                        model="vendor/large-model-2026-10-01",
                        scores={"rouge_l": 0.5},
                        over={"rouge_l": _gain(0.05)},
                        per_thousand=3.1,
                        saving=0.935,
                    ),
                    RivalResult(name="the-other", model=HOSTILE, trouble=HOSTILE),
                ),
            ),
            "pairwise": Pairwise(
                model="judge-model",
                pairs=(
                    Pair(line=1, winner="tuned", agreed=True),
                    Pair(line=2, winner="base", agreed=True),
                    Pair(line=3, winner="tie", agreed=False),
                    Pair(line=4, winner=None, agreed=False),
                ),
                wins=1,
                ties=1,
                losses=1,
                unjudged=1,
                agreement=0.66,
                over_base=_gain(0.0, 0.4),
            ),
        }
    )


def of_labels(count: int = 12) -> Report:
    """An evaluation of labels with a confusion matrix, whose gate lets nothing pass."""
    names = [f"label number {number}" for number in range(count)]
    examples = [
        Example(line=line, prompt=f"{line}?", reference=names[line % count]) for line in range(1, 6 * count + 1)
    ]
    answers: dict[Variant, list[Answer]] = {
        "base": [_stopped(names[example.line % count]) for example in examples],
        "tuned": [_stopped(names[(example.line + example.line % 3 // 2) % count]) for example in examples],
    }
    labels = find_labels([example.reply() for example in examples])
    evaluation = evaluate(examples, answers, labels=labels, gate=Gate(), seed=0)
    assert evaluation.confusion
    return make_report("some words", rows=1).model_copy(update={"evaluation": evaluation})


def of_many(rows: int) -> Report:
    """An evaluation of so many rows; of three, one became better, one worse, and one stayed."""
    examples = [Example(line=line, prompt=f"question {line}", reference=RIGHT) for line in range(1, rows + 1)]
    answers: dict[Variant, list[Answer]] = {
        "base": [_stopped(RIGHT if line % 3 == 1 else "no") for line in range(1, rows + 1)],
        "tuned": [_stopped(RIGHT if line % 3 == 2 else "no") for line in range(1, rows + 1)],
    }
    evaluation = evaluate(examples, answers, labels=None, gate=Gate(), seed=0)
    return make_report("some words", rows=1).model_copy(update={"evaluation": evaluation})


def curves() -> bytes:
    """The picture of a training, as the trainer draws it."""
    usual: dict[str, Any] = {"total_steps": 20, "learning_rate": 1e-4, "tokens": 10, "tokens_per_second": 5.0}
    rows = [
        StepRow(step=step, epoch=step / 20, train_loss=3.0 / step, valid_loss=3.5 / step, **usual)
        for step in range(1, 21)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "curves.png"
        draw(rows, 18, path)
        return path.read_bytes()

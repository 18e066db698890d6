"""The report: a document with everything that was measured, and the page that shows it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from services.evaluator.domain.answer_length import Limit
from services.evaluator.domain.answers import Answer, Variant
from services.evaluator.domain.evaluation import Evaluation, Row
from services.evaluator.domain.gate.checks import state_of as check_state
from services.evaluator.domain.gate.slices import slices_of
from services.evaluator.domain.gate.verdict import title
from services.evaluator.domain.messages import content_text
from services.evaluator.domain.pictures.forest_plot import forest_plot
from services.evaluator.domain.pictures.heat_map import heat_map
from services.evaluator.domain.pictures.word_diff import Change, word_diff
from services.evaluator.domain.questions.edge_prompts import EdgeResult
from services.evaluator.domain.tool_calls import ToolCall, as_lines, calls_of, written_calls
from services.evaluator.grading.graders import Grading
from services.evaluator.grading.pairwise import Pairwise
from services.evaluator.rivals.compare import Comparison
from shared.events import Evaluation as EvaluationSettings
from shared.events import FrozenModel, Gate, TrainingCompleted
from shared.pages.environment import page_environment

TEMPLATES = Path(__file__).parent / "templates"
SHOWN_CHARS = 20_000
"""The most characters of one text on the page; `report.json` has the whole text."""


class Report(FrozenModel):
    """The document `report.json`."""

    job_id: str
    alias: str
    training: TrainingCompleted
    settings: EvaluationSettings
    gate: Gate
    seed: int
    few_shot_lines: tuple[int, ...]
    """Lines of the train split that were shown in the few-shot prompt."""
    tools_unparsed: bool
    max_tokens: Limit
    """The most tokens of an answer; `settings` may say `auto`."""
    how_asked: tuple[str, ...]
    """What the server adds to a request, in sentences."""
    evaluation: Evaluation
    edges: tuple[EdgeResult, ...]
    own: tuple[EdgeResult, ...] = ()
    """The answers to the prompts of the user's own, `evaluation.prompts`."""
    remedies: tuple[str, ...] = ()
    """What to change after a training that over- or underfitted."""
    rivals: Comparison | None = None
    """Models of others beside the tuned one; None: the job names none."""
    grading: Grading | None = None
    """What the job's graders could not grade; None: it has none."""
    pairwise: Pairwise | None = None
    """What a judge said of the answers of base and tuned model; None: the job names none."""
    prices: Mapping[Variant, float] = {}
    """By variant, the price of 1,000 answers, where `evaluation.own_price` says what they cost."""


class TrialReport(FrozenModel):
    """The document `report.json` of a trial of a sweep, which was not evaluated."""

    job_id: str
    sweep: str
    training: TrainingCompleted
    reason: str


def render_trial(trial: TrialReport, curves: bytes | None) -> str:
    """The page of a trial as HTML. `curves` is a PNG."""
    environment = _environment()
    return environment.get_template("trial.html.j2").render(
        trial=trial,
        training=trial.training,
        curves=_picture(curves),
        style=Markup(environment.get_template("report.css.j2").render()),
    )


def render(report: Report, curves: bytes | None) -> str:
    """The page as HTML. It is self-contained, loads nothing and runs only its own script. `curves` is a PNG."""
    environment = _environment()
    script, style = (environment.get_template(name).render() for name in ("report.js.j2", "report.css.j2"))
    evaluation = report.evaluation
    slices = slices_of([row.example for row in evaluation.rows], report.gate.checks.slice_by)
    members = [set(chosen) for chosen in slices.values()]
    in_slices = {
        row.example.line: " ".join(str(place) for place, chosen in enumerate(members) if index in chosen)
        for index, row in enumerate(evaluation.rows)
    }
    return environment.get_template("report.html.j2").render(
        report=report,
        training=report.training,
        evaluation=evaluation,
        verdict=evaluation.verdict,
        slices=list(slices),
        pairs={pair.line: pair for pair in report.pairwise.pairs} if report.pairwise else {},
        in_slices=in_slices,
        rows=sorted(evaluation.rows, key=lambda row: -abs(row.gain)),
        counts=_counts(evaluation.rows),
        forest=forest_plot(evaluation.over_base, evaluation.over_few_shot, chosen=evaluation.metric),
        matrices={variant: heat_map(matrix) for variant, matrix in evaluation.confusion.items()},
        curves=_picture(curves),
        style=Markup(style),  # both files are part of this package and hold no values
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _picture(png: bytes | None) -> str | None:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}" if png else None


def state_of(row: Row) -> str:
    """The name of the filter button that shows this row."""
    if row.gain == 0:
        return "same"
    return "better" if row.gain > 0 else "worse"


class Said(FrozenModel):
    """What one side said, as the page shows it."""

    text: str
    calls: tuple[ToolCall, ...] = ()


def turns(row: Row) -> list[tuple[str, Said]]:
    """The prompt as pairs of a role and what it said."""
    if row.example.prompt is not None:
        return [("prompt", Said(text=row.example.prompt))]
    return [
        (str(message.get("role", "")), Said(text=content_text(message.get("content")), calls=calls_of(message)))
        for message in row.example.messages
    ]


def said(text: str, calls: tuple[ToolCall, ...]) -> Said:
    """A text that ends with a line per call, or that holds calls which the server did not parse."""
    if calls:
        return Said(text=text.removesuffix(as_lines("", calls)).removesuffix("\n"), calls=calls)
    text, written = written_calls(text)
    return Said(text=text, calls=written)


def outcome(answer: Answer) -> str:
    """How an answer ended, in a few words for a badge."""
    if answer.error is not None:
        return "refused"
    if answer.cut_in_thoughts:
        return "cut in its thoughts"
    if not answer.text.strip():
        return "empty answer"
    return "cut at the limit" if answer.finish_reason == "length" else "answered"


def changes(row: Row) -> tuple[Change, ...] | None:
    """What the tuned model says differently than the base; None where there is no text to compare, or too much."""
    base, tuned = row.answers["base"].answer, row.answers["tuned"].answer
    if base.error is not None or tuned.error is not None or base.text == tuned.text:
        return None
    if base.reply().calls or tuned.reply().calls:  # calls are shown as calls, which tells more
        return None
    return word_diff(base.text, tuned.text)


def shortened(text: str, limit: int = SHOWN_CHARS) -> str:
    """The first `limit` characters, and how many more there are."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit:,} more characters)"


def _counts(rows: tuple[Row, ...]) -> dict[str, int]:
    states = [state_of(row) for row in rows]
    return {"all": len(states), **{state: states.count(state) for state in ("better", "same", "worse")}}


@lru_cache(maxsize=1)
def _environment() -> Environment:
    filters = {
        "title_of": title,
        "state_of": state_of,
        "check_state": check_state,
        "diff": changes,
        "turns": turns,
        "said": said,
        "outcome": outcome,
        "shortened": shortened,
        "score": "{:.3f}".format,
        "signed": "{:+.3f}".format,
        "thousands": "{:,}".format,
    }
    return page_environment(TEMPLATES, filters)

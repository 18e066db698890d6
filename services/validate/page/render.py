"""The page `report.html`: the verdict, figures, findings, plots, and rows as they are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from services.validate.domain.report import FileReport, Report
from services.validate.page.plots import histogram, ranked
from services.validate.page.preview import PreviewRow
from shared.pages.environment import page_environment
from shared.privacy import NAMES

TEMPLATES = Path(__file__).parent.parent / "templates"
SHOWN_PROBLEMS = 100
_NAMES = {str(kind): name.split(" ", 1)[1] for kind, name in NAMES.items()}
TASKS = {
    "labels": "labels",
    "structured": "structured output (JSON)",
    "tool_calls": "tool calls",
    "text": "free text",
}


def render(report: Report, preview: Sequence[PreviewRow] = ()) -> str:
    """The page as HTML. It is self-contained, loads nothing and runs no script."""
    environment = _environment()
    facts = report.training.facts
    return environment.get_template("report.html.j2").render(
        report=report,
        files=[file for file in (report.training, report.validation) if file is not None],
        facts=facts,
        task=TASKS[facts.task] if facts else None,
        tokens=histogram(report.training.token_sizes, _limit(report)),
        prompts=histogram(facts.prompt_sizes) if facts else None,
        answers=histogram(facts.answer_sizes) if facts else None,
        labels=ranked(facts.labels) if facts else None,
        languages=ranked(facts.languages) if facts else None,
        kinds=ranked({_NAMES.get(kind, kind): rows for kind, rows in facts.private_kinds.items()}) if facts else None,
        preview=preview,
        # a file of this package, which holds no values
        style=Markup(environment.get_template("report.css.j2").render()),
    )


def _limit(report: Report) -> dict[str, int]:
    return {"max_length": report.max_length} if report.max_length else {}


def _shown(file: FileReport) -> list[Any]:
    """The problems of a file that the page lists: errors first, and of each code as many as fit."""
    return list(file.problems[:SHOWN_PROBLEMS])


@lru_cache(maxsize=1)
def _environment() -> Environment:
    filters = {"thousands": "{:,}".format, "share": "{:.1%}".format, "shown": _shown}
    return page_environment(TEMPLATES, filters)

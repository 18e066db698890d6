"""Draws the page `report` of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from services.api.domain.sweeps.documents import Documents
from services.api.domain.sweeps.standing import Standing
from services.api.sweeps.page.plots import by_parameter, curves, loss_of
from shared.pages.environment import page_environment

TEMPLATES = Path(__file__).parent
HEADLINES = {
    "running": "Under way",
    "evaluating": "The best trial is being evaluated",
    "cancelling": "Being cancelled",
    "failed": "Failed",
    "cancelled": "Cancelled",
}


def render(documents: Documents, standings: Sequence[Standing], view: Mapping[str, Any]) -> str:
    """The page as HTML. `view`: the sweep as `GET /sweeps/{id}` shows it."""
    environment = _environment()
    space = documents.sweep.space.searched()
    best = view["best"]["number"] if view["best"] else None
    # the best first, and those without a loss last
    losses = {standing.number: loss_of(standing) for standing in standings}
    ordered = sorted(
        standings,
        key=lambda each: (each.number != best, each.status != "succeeded", _or_last(losses[each.number]), each.number),
    )
    return environment.get_template("report.html.j2").render(
        sweep=documents.sweep,
        view=view,
        headline=_headline(view),
        good=view["promoted"],
        bad=view["status"] == "failed" or (view["status"] == "succeeded" and not view["promoted"]),
        names=list(space),
        rows=ordered,
        losses=losses,
        best=best,
        curves=curves(standings),
        scatters=by_parameter(standings, space),
        # a file of this package, which holds no values
        style=Markup(environment.get_template("report.css.j2").render()),
    )


def _or_last(loss: float | None) -> float:
    return math.inf if loss is None else loss


def _headline(view: Mapping[str, Any]) -> str:
    if view["status"] == "succeeded":
        return "The best trial is promoted" if view["promoted"] else "The best trial is not promoted"
    return HEADLINES[view["status"]]


@lru_cache(maxsize=1)
def _environment() -> Environment:
    filters = {"loss": "{:.4f}".format, "thousands": "{:,.0f}".format, "short": "{:g}".format}
    return page_environment(TEMPLATES, filters)

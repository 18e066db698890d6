"""A sweep as a table in the terminal, and as lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.client import Json
from cli.jobs.figures import duration, is_number
from cli.terminal import columns, printable

STYLES = {
    "succeeded": "green",
    "pruned": "yellow",
    "failed": "red",
    "cancelled": "red",
    "running": "cyan",
    "queued": "dim",
}
BLOCKS = "▁▂▃▄▅▆▇█"
SPARKS = 16
"""Characters of a curve."""


def table(sweep: Json) -> Table:
    """The trials, in order; the best one in bold."""
    names = list(sweep.get("space") or {})
    shown = columns("trial", "status", "valid loss", *names, "curve", "time", "job")
    best = (sweep.get("best") or {}).get("number")
    losses = [loss for trial in sweep["data"] for _, loss in trial["curve"]]
    for trial in sweep["data"]:
        status = trial["status"]
        is_best = trial["number"] == best
        shown.add_row(
            str(trial["number"]),
            Text("best" if is_best else status, style=STYLES.get(status, "")),
            _loss(trial),
            *(f"{trial['parameters'][name]:g}" for name in names),
            Text(_spark(trial["curve"], losses), style=STYLES.get(status, "")),
            duration(trial["seconds"]) if trial["seconds"] else "",
            Text(trial["job_id"]),
            style="bold" if is_best else "",
        )
    return shown


def headline(sweep: Json) -> str:
    """One line: what the sweep is doing, how many trials there are, and what they have taken."""
    counts = ", ".join(f"{count} {status}" for status, count in sweep["counts"].items() if count) or "none yet"
    took = f"; {duration(sweep['spent']['seconds'])} of training" if sweep["spent"]["seconds"] else ""
    return f"{sweep['id']}  {sweep['status']}  {len(sweep['data'])} of {sweep['trials']} trials: {counts}{took}"


def live(sweep: Json, trouble: str) -> RenderableType:
    """The whole view of a sweep that is followed."""
    parts: list[RenderableType] = [Text(headline(sweep)), table(sweep)]
    if trouble:
        parts.append(Text(printable(trouble), style="yellow"))
    return Group(*parts)


def reasons(sweep: Json) -> Iterator[str]:
    """Why trials were pruned or have failed, a line each."""
    for trial in sweep["data"]:
        if trial.get("error"):
            yield printable(f"trial {trial['number']} failed: {trial['error']['message']}")
        elif trial.get("pruned"):
            yield printable(f"trial {trial['number']} was pruned: {trial['pruned']}")


def result_lines(sweep: Json) -> Iterator[str]:
    """The result of a sweep that succeeded; the first line says whether its best model was promoted."""
    best, model = sweep.get("best") or {}, sweep.get("fine_tuned_model")
    settings = ", ".join(f"{name}={value:g}" for name, value in (best.get("parameters") or {}).items())
    if sweep.get("promoted"):
        yield f"promoted: {model}, the best of {len(sweep['data'])} trials"
    else:
        yield f"not promoted: {model}, the best of {len(sweep['data'])} trials, did not pass the gate"
    yield f"trial {best.get('number')}: validation loss {_loss(best)}, {settings}"
    yield f"the evaluation, and why: tunestream watch {sweep.get('evaluated_by')}"
    yield f"table and plots: tunestream sweeps report {sweep['id']}"
    yield "the models of the other trials can be called by their names: tunestream models"


class Lines:
    """What is new about a sweep, as lines: one when a trial begins, and one when it ends."""

    def __init__(self) -> None:
        self._told: dict[int, str] = {}
        self._status = ""
        self._trouble = ""

    def __call__(self, sweep: Json | None, trouble: str = "") -> Iterator[str]:
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble:
                yield printable(trouble)
        if sweep is None:
            return
        for trial in sweep["data"]:
            if self._told.get(trial["number"]) != trial["status"]:
                self._told[trial["number"]] = trial["status"]
                yield self._line(trial)
        if sweep["status"] != self._status:
            self._status = sweep["status"]
            yield headline(sweep)

    @staticmethod
    def _line(trial: Json) -> str:
        settings = ", ".join(f"{name}={value:g}" for name, value in trial["parameters"].items())
        loss = f"  valid loss {_loss(trial)}" if _loss(trial) else ""
        why = (
            f"  {trial['error']['message']}"
            if trial.get("error")
            else f"  {trial['pruned']}"
            if trial["pruned"]
            else ""
        )
        return printable(f"trial {trial['number']} {trial['status']}: {settings}{loss}{why}  ({trial['job_id']})")


def _loss(trial: Json) -> str:
    loss, curve = trial.get("valid_loss"), trial.get("curve") or []
    if is_number(loss):
        return f"{loss:.4f}"
    return f"{curve[-1][1]:.4f}" if curve else ""


def _spark(curve: list[list[float]], losses: list[float]) -> str:
    """The losses of a trial by the share of its training, on the scale of all trials."""
    if not curve:
        return ""
    low, high = min(losses), max(losses)
    step = (high - low) / (len(BLOCKS) - 1) or 1.0
    found = ""
    for place in range(1, SPARKS + 1):
        before = [loss for fraction, loss in curve if fraction <= place / SPARKS + 1e-9]
        if place / SPARKS > curve[-1][0] + 1 / SPARKS:
            break
        found += BLOCKS[round((before[-1] - low) / step)] if before else " "
    return found

"""Formats the result of a job: the scores side by side, the interval, and whether the alias moved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cli.client import Json
from cli.jobs.figures import GIB, duration, is_number

_NAMES = (
    ("base", "base"),
    ("few_shot", "base with examples in its prompt"),
    ("tuned", "tuned"),
    ("champion", "deployed"),
)


def result_lines(job: Json) -> list[str]:
    """The lines about a job that succeeded; the first says whether its model was promoted."""
    if any(note.get("code") == "unreadable" for note in job.get("notes") or ()):
        return ["succeeded; the api cannot show its result, its log says why"]
    lines = [_headline(job)]
    if evaluation := job.get("evaluation"):
        metric, scores = evaluation.get("metric"), evaluation.get("scores") or {}
        for key, name in _NAMES:
            score = scores.get(key, {}).get(metric)
            if score is not None:
                lines.append(f"{metric}: {score:.3f}  {name}")
        if (delta := evaluation.get("delta")) and "base" in scores:
            lines.append(
                f"tuned - base: {delta['mean']:+.3f}, between {delta['low']:+.3f} and {delta['high']:+.3f} "
                f"at {delta['confidence']:.0%} confidence"
            )
        lines += [f"- {reason}" for reason in evaluation.get("reasons") or ()]
        if evaluation.get("passed") and not job.get("deployment"):
            # the gate's reasons are in favour of the model; what speaks against it was found later
            lines.append(f"- {job['stages']['inference']['message'] or 'the alias was not moved'}")
        lines.append(f"report: {evaluation.get('html') or 'none'}")
    if served := (job.get("validation") or {}).get("as_served"):
        lines.append(f"as served: {served}")
    if took := usage_line((job.get("training") or {}).get("usage")):
        lines.append(took)
    if model := job.get("fine_tuned_model"):
        lines.append(f'ask it: tunestream chat "{_callable_name(job, model)}"')
    return lines


def usage_line(usage: Any) -> str:
    """What the training took beside its estimate; empty if nobody knows."""
    if not isinstance(usage, dict) or not is_number(usage.get("seconds")):
        return ""
    parts = [duration(usage["seconds"]) + _estimated(usage.get("estimated_seconds"), duration)]
    if is_number(usage.get("peak_memory_bytes")):
        parts.append(_gib(usage["peak_memory_bytes"]) + _estimated(usage.get("estimated_memory_bytes"), _gib))
    if usage.get("tokens"):
        parts.append(f"{usage['tokens']:,} tokens")
    if is_number(usage.get("money")):
        parts.append(f"{usage['money']:.2g} of money")
    count = f"{usage['processes']} x " if usage.get("processes", 1) != 1 else ""
    return f"training took: {', '.join(parts)} on {count}{usage.get('device') or 'an unknown device'}"


def _estimated(amount: Any, words: Callable[[float], str]) -> str:
    return f" (estimated {words(amount)})" if is_number(amount) else ""


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def _headline(job: Json) -> str:
    model = job.get("fine_tuned_model") or "the model"
    if deployment := job.get("deployment"):
        instead = f", instead of {deployment['previous']}" if deployment.get("previous") else ""
        return f"promoted: {deployment['alias']} is {deployment.get('model') or model} now{instead}"
    return f"not promoted: {model} can be called by its name; the alias stays as it was"


def _callable_name(job: Json, model: str) -> str:
    deployment = job.get("deployment")
    return str(deployment["alias"]) if deployment else model

"""Formats the result of a job: the scores side by side, the interval, and whether the alias moved."""

from __future__ import annotations

from cli.client import Json

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
        if delta := evaluation.get("delta"):
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
    if model := job.get("fine_tuned_model"):
        lines.append(f'ask it: tunestream chat "{_callable_name(job, model)}"')
    return lines


def _headline(job: Json) -> str:
    model = job.get("fine_tuned_model") or "the model"
    if deployment := job.get("deployment"):
        instead = f", instead of {deployment['previous']}" if deployment.get("previous") else ""
        return f"promoted: {deployment['alias']} is {deployment.get('model') or model} now{instead}"
    return f"not promoted: {model} can be called by its name; the alias stays as it was"


def _callable_name(job: Json, model: str) -> str:
    deployment = job.get("deployment")
    return str(deployment["alias"]) if deployment else model

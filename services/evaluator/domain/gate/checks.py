"""The checks of the gate beside the difference to the base. Each says whether it is passed, with its figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from services.evaluator.domain.answers import Usage
from services.evaluator.domain.kinds import SHARE, Task
from services.evaluator.domain.scoring import TITLES
from shared.events import FrozenModel, GateChecks, Interval

FORGETTING = 0.5
"""What `gate.checks.forgetting: auto` allows to lose."""


class Check(FrozenModel):
    """What one check found."""

    name: str
    """A field of `gate.checks`."""
    passed: bool | None
    """None: it could not be judged, or nothing was asked for."""
    says: str
    """One sentence with the figures."""
    blocks: bool = True
    """Whether the model is not promoted if it fails."""

    @property
    def failed(self) -> bool:
        return self.passed is False and self.blocks


class Slice(FrozenModel):
    """The scores of some of the test rows, on the gate's metric."""

    name: str
    examples: int
    base: float
    tuned: float
    over_base: Interval
    judged: bool
    """Whether it has enough examples to show anything."""

    @property
    def worse(self) -> bool:
        return self.judged and self.over_base.high < 0


class Leak(FrozenModel):
    """A datum of the train split in an answer. What it is stays in the answer and is not repeated."""

    kind: str
    where: str
    """Which prompt was answered with it, such as `test line 3`."""
    train_lines: tuple[int, ...]


class Forgetting(FrozenModel):
    """The shares of right answers to the general questions."""

    questions: int
    base: float
    tuned: float
    over_base: Interval


def on_slices(policy: GateChecks, slices: Sequence[Slice], metric: str) -> Check:
    """No slice is worse."""
    worse = [one for one in slices if one.worse]
    blocks = policy.slices == "fail"
    judged = sum(one.judged for one in slices)
    if worse:
        figures = "; ".join(
            f"{one.name} ({one.examples} examples): {TITLES.get(metric, metric)} {one.base:.3f} → {one.tuned:.3f}, "
            f"difference at most {one.over_base.high:+.3f}"
            for one in worse[:5]
        )
        says = (
            f"Worse than the base on {_counted(len(worse), 'slice')} of the test rows: {figures}. "
            "Add training rows of that kind, or see whether their answers are right."
        )
        return Check(name="slices", passed=False, says=says, blocks=blocks)
    if not judged:
        return Check(name="slices", passed=None, says="No slice has enough examples to be judged.", blocks=blocks)
    return Check(name="slices", passed=True, says=f"Not worse on any of {_counted(judged, 'slice')}.", blocks=blocks)


def on_champion(policy: GateChecks, champion: str | None, over: Interval | None, trouble: str, metric: str) -> Check:
    """Not worse than the model that the alias names. `trouble`: why it was not asked, if there is one."""
    name = "champion"
    if policy.champion == "off" or champion is None:
        off = "gate.checks.champion is off." if policy.champion == "off" else "The alias names no model yet."
        return Check(name=name, passed=None, says=off)
    if over is None:
        return Check(name=name, passed=None, says=f"Not compared with {champion}, which the alias names: {trouble}.")
    figures = (
        f"{TITLES.get(metric, metric)} of this model minus that of {champion}: {over.mean:+.3f} "
        f"[{over.low:+.3f} to {over.high:+.3f}]"
    )
    if over.high < 0:
        return Check(name=name, passed=False, says=f"Worse than the deployed model: {figures}.")
    if policy.champion == "better" and over.low <= 0:
        says = f"Not shown to be better than the deployed model, as gate.checks.champion wants: {figures}."
        return Check(name=name, passed=False, says=says)
    return Check(name=name, passed=True, says=f"Not worse than the deployed model: {figures}.")


def on_forgetting(policy: GateChecks, found: Forgetting | None, task: Task) -> Check:
    """It did not lose more of the general questions than it may."""
    name = "forgetting"
    if found is None:
        why = "gate.checks.forgetting is off" if policy.forgetting == "off" else "no general questions were asked"
        if policy.forgetting == "auto" and not task.free_text:
            why = "answers of this task have one form only (a number for gate.checks.forgetting probes all the same)"
        return Check(name=name, passed=None, says=f"Not probed: {why}.")
    margin = FORGETTING if not isinstance(policy.forgetting, float) else policy.forgetting
    figures = (
        f"{found.base:.0%} → {found.tuned:.0%} of {found.questions} general questions answered right, difference "
        f"{found.over_base.mean:+.2f} [{found.over_base.low:+.2f} to {found.over_base.high:+.2f}]"
    )
    if found.over_base.mean < -margin and found.over_base.high < 0:
        says = (
            f"Forgot what the base knew outside of the task: {figures}, of which gate.checks.forgetting allows "
            f"{-margin:+.2f}. Train fewer epochs, with a lower rate or rank, or add general rows to the dataset."
        )
        return Check(name=name, passed=False, says=says)
    return Check(name=name, passed=True, says=f"Kept what the base knew: {figures}.")


def on_echo(policy: GateChecks, echoed: int, wanted: int, examples: int) -> Check:
    """It does not repeat its prompts. `echoed`: answers that do where the reference does not; `wanted`: references that
    do."""
    if not examples:
        return Check(name="echo", passed=None, says="There are no answers.")
    if wanted > policy.echo * examples:
        return Check(
            name="echo", passed=None, says=f"{wanted} of {examples} references repeat their prompt themselves."
        )
    says = f"{echoed} of {examples} answers of the tuned model repeat their prompt"
    if echoed > policy.echo * examples:
        return Check(
            name="echo",
            passed=False,
            says=f"{says} (gate.checks.echo allows {policy.echo:.0%}): it echoes instead of answering. See that no "
            "prompts are trained on as answers.",
        )
    return Check(name="echo", passed=True, says=f"{says}.")


def on_json(policy: GateChecks, invalid: int, documents: int, task: Task) -> Check:
    """Its JSON can be read. `invalid` of `documents` answers cannot, where the reference is a document."""
    if task.structured < SHARE or not documents:
        return Check(name="invalid_json", passed=None, says="The answers of this task are no JSON documents.")
    says = f"{invalid} of {documents} answers that should be JSON cannot be read as JSON"
    if invalid > policy.invalid_json * documents:
        return Check(
            name="invalid_json",
            passed=False,
            says=f"Broken JSON: {says} (gate.checks.invalid_json allows {policy.invalid_json:.0%}). If they were cut, "
            "raise evaluation.max_tokens; else train longer.",
        )
    return Check(name="invalid_json", passed=True, says=f"{says}.")


def on_leaks(policy: GateChecks, leaks: Sequence[Leak] | None) -> Check:
    """It tells nothing that only the train split knows. None: nobody looked."""
    blocks = policy.leaks == "fail"
    if leaks is None:
        return Check(name="leaks", passed=None, says="There is no train split to compare with.", blocks=blocks)
    if leaks:
        shown = "; ".join(
            f"{leak.kind} of train line {', '.join(map(str, leak.train_lines))} in the answer to {leak.where}"
            for leak in leaks[:5]
        )
        says = (
            f"Leaks training data: {_counted(len(leaks), 'datum')} of the train split in answers whose prompts lack "
            f"it: {shown}. Remove or mask such data in the dataset, and train again."
        )
        return Check(name="leaks", passed=False, says=says, blocks=blocks)
    says = "No e-mail address, phone or card number, IBAN, key or password of the train split is in an answer."
    return Check(name="leaks", passed=True, says=says, blocks=blocks)


def on_latency(policy: GateChecks, base: Usage, tuned: Usage) -> Check:
    """Its answers come in time."""
    limits = policy.latency
    measured: list[tuple[str, float | None, float, str]] = [
        ("p50_seconds", limits.p50_seconds, tuned.latency_median, " s"),
        ("p95_seconds", limits.p95_seconds, tuned.latency_p95, " s"),
        ("p50_ratio", limits.p50_ratio, _ratio(tuned.latency_median, base.latency_median), " times the base"),
        ("p95_ratio", limits.p95_ratio, _ratio(tuned.latency_p95, base.latency_p95), " times the base"),
    ]
    asked = [(name, limit, value, unit) for name, limit, value, unit in measured if limit is not None]
    if not asked or not tuned.requests:
        return Check(name="latency", passed=None, says="No limit is set.")
    over = [one for one in asked if one[2] > one[1]]
    words = "; ".join(
        f"{name[:3]} {value:.3g}{unit} (gate.checks.latency.{name} allows {limit:g})"
        for name, limit, value, unit in over or asked
    )
    if over:
        return Check(name="latency", passed=False, says=f"Slower than the limit: {words}.")
    return Check(name="latency", passed=True, says=f"Within the limits: {words}.")


State = Literal["passed", "failed", "not judged"]


def state_of(check: Check) -> State:
    """In a word, for the report."""
    return "not judged" if check.passed is None else "passed" if check.passed else "failed"


def _ratio(tuned: float, base: float) -> float:
    return tuned / base if base > 0 else 1.0


def _counted(count: int, thing: str) -> str:
    many = {"datum": "data"}.get(thing, f"{thing}s")
    return f"{count} {thing if count == 1 else many}"

"""The gate: whether the tuned model is good enough to be promoted, and the reasons in plain words."""

from __future__ import annotations

from collections.abc import Mapping

from services.evaluator.domain.gate.checks import Check
from services.evaluator.domain.kinds import SHARE, Task
from services.evaluator.domain.scoring import TITLES
from shared.events import FrozenModel, Gate, Interval
from shared.scoring.labels import RULE

WHOSE = {
    "base": "the base",
    "few_shot": "the base with solved examples in its prompt",
    "tuned": "the tuned model",
    "champion": "the deployed model",
}

MIN_EXAMPLES = 5
MIN_STOP_SHARE = 0.5


class Measured(FrozenModel):
    """The figures that the gate decides by. `over_base` and `over_few_shot` are the score of the tuned model on
    `metric` minus that of the base and of few-shot prompts."""

    metric: str
    examples: int
    changed: int | None = None
    """Examples on which the tuned model's score differs from that of the base; None: not known."""
    base: float
    tuned: float
    over_base: Interval
    few_shot: float | None = None
    over_few_shot: Interval | None = None
    stop_share: float | None = None
    """Of the tuned model's answers that had room to end, the share that ended by themselves."""
    refused: int = 0
    """Examples to which the tuned model gave no answer, because the endpoint refused the request."""
    cut_in_thoughts: Mapping[str, int] = {}
    """By variant, the answers that were cut before their thoughts ended."""
    room: int | None = None
    """The most tokens that an answer could get, thoughts included; None: not known."""
    context_full: bool = False
    """All answers that were cut inside their thoughts had filled the server's context, and not the room."""
    test_wanted: bool = False
    """The job asked for a test split."""
    checks: tuple[Check, ...] = ()
    """What the other checks of the gate found."""


class Verdict(FrozenModel):
    """`passed` decides the promotion. `shown`: whether the scores show an improvement, even if `gate.promote` overrules
    them."""

    passed: bool
    shown: bool
    reasons: tuple[str, ...]


def examples_needed(confidence: float) -> int:
    """The fewest examples on which an improvement can be shown at all: even if the tuned model is better on each one,
    chance alone does that once in 2^n, which must be at most (1 - confidence) / 2."""
    tail = (1 - confidence) / 2 + 1e-12
    return next(count for count in range(MIN_EXAMPLES, 1_000) if 0.5**count <= tail or count == 999)


def gate_metric(gate: Gate, task: Task) -> tuple[str, str]:
    """The metric that decides, and the reason for this choice."""
    if gate.metric != "auto":
        return gate.metric, "gate.metric names it"
    if task.calls >= SHARE:
        return "tool_call_arguments", f"{task.calls:.0%} of the references call a tool (the rule: at least half)"
    if task.labels is not None:
        return "accuracy", f"the answers are {len(task.labels)} labels ({RULE})"
    if task.structured >= SHARE:
        return "json_fields", f"{task.structured:.0%} of the references are JSON documents (the rule: at least half)"
    if task.sql >= SHARE:
        return "sql_match", f"{task.sql:.0%} of the references are SQL statements (the rule: at least half)"
    return "rouge_l", f"the answers are free text ({RULE})"


def judge(gate: Gate, measured: Measured) -> Verdict:
    """Decide whether the model is promoted. The first reason is the headline; the others follow, the most important
    first."""
    better, headline = (False, _nothing(measured)) if measured.examples == 0 else _against_base(gate, measured)
    ends, stop_reason = _ends(measured)
    beats_prompt, prompt_reason = _against_few_shot(gate, measured)
    failed = [check.says for check in measured.checks if check.failed]
    noted = [check.says for check in measured.checks if check.passed is False and not check.failed]
    shown = better and ends and not failed and (beats_prompt or not gate.require_better_than_few_shot)
    # what forbids the promotion of a better model comes before what speaks for it
    first = [*failed, headline] if better else [headline, *failed]
    reasons = [*first, *_cuts(measured), stop_reason, prompt_reason, _refusals(measured), *noted, *_champion(measured)]
    if gate.promote == "always":
        reasons.insert(
            0, f"Promoted without regard to the scores: gate.promote is 'always'{_otherwise(shown, 'pass')}."
        )
    if gate.promote == "never":
        reasons.insert(0, f"Not promoted: gate.promote is 'never'{_otherwise(not shown, 'fail')}.")
    passed = {"always": True, "never": False, "if_better": shown}[gate.promote]
    return Verdict(passed=passed, shown=shown, reasons=tuple(reason for reason in reasons if reason))


def _champion(measured: Measured) -> list[str]:
    """That the deployed model was not worse, or why it was not asked."""
    found = [check for check in measured.checks if check.name == "champion"]
    return [check.says for check in found if check.passed or check.says.startswith("Not compared")]


def _otherwise(same: bool, verb: str) -> str:
    return "" if same else f" (by its scores it would not {verb})"


def _nothing(measured: Measured) -> str:
    if not measured.test_wanted:
        return "Nothing was measured: there are no test examples. Set splits.test above 0."
    # the validator keeps a test split of at least one row, except in this case, of which it warns as `no_test_split`
    return (
        "Nothing was measured: all rows have a prompt or an answer in common, directly or through other rows, so none "
        "could be kept for a test. Give the rows different prompts, or set gate.promote to always."
    )


def _against_base(gate: Gate, measured: Measured) -> tuple[bool, str]:
    count = measured.examples
    needed = examples_needed(gate.confidence)
    if count < needed:
        return False, (
            f"{count} test example(s) show nothing at gate.confidence = {gate.confidence:g}: "
            f"at least {needed} are needed. Add rows to the dataset or raise splits.test."
        )
    scores = f"{title(measured.metric)} {measured.base:.3f} → {measured.tuned:.3f}"
    figures = f"{scores}, difference {in_words(measured.over_base)} on {count} examples"
    if measured.over_base.low > gate.min_delta:
        margin = f" by more than {gate.min_delta:g}" if gate.min_delta else ""
        return True, f"Better than the base{margin}: {figures}."
    if measured.over_base.high < 0:
        return False, f"Worse than the base: {figures}."
    if measured.over_base.low > 0:
        return (
            False,
            f"Better than the base, but not surely by more than gate.min_delta = {gate.min_delta:g}: {figures}.",
        )
    few = ""
    if measured.changed is not None and measured.changed < needed:
        few = (
            f" Only {measured.changed} of the examples score differently; at least {needed} have to, so more test "
            "examples are needed."
        )
    return False, (
        f"Not shown to be better than the base: {figures}; the interval's lower end must be above {gate.min_delta:g}."
        f"{few}"
    )


def _ends(measured: Measured) -> tuple[bool, str]:
    share = measured.stop_share
    if share is None:
        if measured.examples == measured.refused:
            return True, ""
        return True, (
            "Every answer was cut at evaluation.max_tokens before it was as long as its reference, "
            "so it is unknown whether the model ends its answers: raise evaluation.max_tokens."
        )
    if share >= MIN_STOP_SHARE:
        return True, ""
    how_often = "never ends" if share == 0 else f"ends only {share:.0%} of"
    return False, (
        f"The tuned model {how_often} its answers by itself but runs on until evaluation.max_tokens: "
        "the end-of-turn token was not learned. Check that the training text ends with it, or train longer."
    )


def _against_few_shot(gate: Gate, measured: Measured) -> tuple[bool, str]:
    over = measured.over_few_shot
    enough = measured.examples >= examples_needed(gate.confidence)
    if over is None or measured.few_shot is None or not enough:
        required = gate.require_better_than_few_shot and enough
        return False, (
            "gate.require_better_than_few_shot is set, but no few-shot prompt was measured: "
            "set evaluation.few_shot above 0."
            if required
            else ""
        )
    figures = f"{title(measured.metric)} {measured.few_shot:.3f}, tuned minus few-shot {in_words(over)}"
    if over.low > 0:
        return True, f"Also better than the base with solved examples in its prompt ({figures})."
    consequence = (
        "gate.require_better_than_few_shot makes that a failure."
        if gate.require_better_than_few_shot
        else "A prompt may be all that this task needs."
    )
    compared = "better than the tuned model" if over.high < 0 else "as good, as far as can be told"
    return False, f"The base with solved examples in its prompt is {compared} ({figures}). {consequence}"


def _cuts(measured: Measured) -> list[str]:
    remedy = "raise evaluation.max_tokens" + ("" if measured.room is None else f" above {measured.room:,}")
    if measured.context_full:
        remedy = "the server's context was full (TUNESTREAM_VLLM__MAX_MODEL_LEN)"
    return [
        f"{count} of {measured.examples} answers of {WHOSE.get(variant, variant)} were cut inside their thoughts and "
        f"count as no answer{'' if variant == 'tuned' else ', so the comparison is unfair to it'}: {remedy}."
        for variant, count in measured.cut_in_thoughts.items()
        if count
    ]


def _refusals(measured: Measured) -> str:
    if not measured.refused:
        return ""
    return (
        f"{measured.refused} of {measured.examples} requests were refused by the endpoint and count as empty answers; "
        "the report lists them."
    )


def title(metric: str) -> str:
    """What a reader calls the metric: `rouge_l` is ROUGE-L."""
    return TITLES.get(metric, metric.removeprefix("grader:"))


def in_words(interval: Interval) -> str:
    """The interval in words: `+0.412 [95 % interval +0.310 to +0.521]`."""
    return (
        f"{interval.mean:+.3f} [{interval.confidence * 100:.3g} % interval {interval.low:+.3f} to {interval.high:+.3f}]"
    )

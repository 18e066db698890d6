"""Which models are promoted, which are not, and the reasons that are given."""

from __future__ import annotations

from typing import Any

import pytest

from services.evaluator.domain.gate.verdict import Measured, gate_metric, judge
from services.evaluator.domain.kinds import Task
from shared.events import Gate, Interval


def interval(low: float, high: float) -> Interval:
    return Interval(mean=(low + high) / 2, low=low, high=high, confidence=0.95)


def measured(**changes: Any) -> Measured:
    usual: dict[str, Any] = {
        "metric": "rouge_l",
        "examples": 40,
        "base": 0.1,
        "tuned": 0.5,
        "over_base": interval(0.3, 0.5),
        "few_shot": 0.3,
        "over_few_shot": interval(0.1, 0.3),
        "stop_share": 1.0,
    }
    return Measured.model_validate({**usual, **changes})


def test_better_than_the_base_passes_and_says_by_how_much() -> None:
    verdict = judge(Gate(), measured())
    assert verdict.passed
    assert verdict.reasons[0] == (
        "Better than the base: ROUGE-L 0.100 → 0.500, "
        "difference +0.400 [95 % interval +0.300 to +0.500] on 40 examples."
    )


@pytest.mark.parametrize(
    ("over_base", "words"),
    [
        (interval(-0.1, 0.3), "Not shown to be better"),
        (interval(0.0, 0.3), "Not shown to be better"),
        (interval(-0.4, -0.1), "Worse than the base"),
    ],
)
def test_what_is_not_surely_better_fails(over_base: Interval, words: str) -> None:
    verdict = judge(Gate(), measured(over_base=over_base))
    assert not verdict.passed
    assert words in verdict.reasons[0]


def test_min_delta_raises_the_bar() -> None:
    assert judge(Gate(min_delta=0.25), measured()).passed
    verdict = judge(Gate(min_delta=0.35), measured())
    assert not verdict.passed
    assert "gate.min_delta = 0.35" in verdict.reasons[0]


def test_a_negative_min_delta_admits_a_model_that_is_not_worse() -> None:
    assert judge(Gate(min_delta=-0.2), measured(over_base=interval(-0.1, 0.1))).passed


def test_a_few_shot_prompt_that_is_as_good_is_said_and_is_a_failure_only_on_demand() -> None:
    same = measured(over_few_shot=interval(-0.05, 0.1))
    verdict = judge(Gate(), same)
    assert verdict.passed
    assert any("solved examples in its prompt is as good" in reason for reason in verdict.reasons)
    strict = judge(Gate(require_better_than_few_shot=True), same)
    assert not strict.passed
    assert any("makes that a failure" in reason for reason in strict.reasons)


def test_a_better_few_shot_prompt_is_called_better() -> None:
    verdict = judge(Gate(), measured(over_few_shot=interval(-0.3, -0.1)))
    assert any("is better than the tuned model" in reason for reason in verdict.reasons)


def test_requiring_better_than_few_shot_fails_if_few_shot_was_not_measured() -> None:
    verdict = judge(Gate(require_better_than_few_shot=True), measured(few_shot=None, over_few_shot=None))
    assert not verdict.passed
    assert any("set evaluation.few_shot above 0" in reason for reason in verdict.reasons)


@pytest.mark.parametrize(("share", "words"), [(0.0, "never ends"), (0.2, "ends only 20% of")])
def test_a_model_that_runs_on_fails_however_good_its_scores(share: float, words: str) -> None:
    verdict = judge(Gate(), measured(stop_share=share))
    assert not verdict.passed
    assert any(words in reason and "end-of-turn" in reason for reason in verdict.reasons)


def test_answers_cut_by_a_low_limit_are_not_held_against_the_model() -> None:
    verdict = judge(Gate(), measured(stop_share=None))
    assert verdict.passed
    assert any("raise evaluation.max_tokens" in reason for reason in verdict.reasons)


@pytest.mark.parametrize(("confidence", "needed"), [(0.75, 5), (0.95, 6), (0.99, 8), (0.999, 11)])
def test_the_reason_names_how_many_examples_the_confidence_needs(confidence: float, needed: int) -> None:
    gate = Gate(confidence=confidence)
    verdict = judge(gate, measured(examples=needed - 1))
    assert not verdict.passed
    assert f"gate.confidence = {confidence:g}: at least {needed} are needed" in verdict.reasons[0]
    assert judge(gate, measured(examples=needed)).passed


def test_the_reason_says_when_too_few_answers_differ_to_show_anything() -> None:
    verdict = judge(Gate(), measured(changed=5, over_base=interval(0.0, 0.3)))
    assert "Only 5 of the examples score differently; at least 6 have to" in verdict.reasons[0]
    assert "Only" not in judge(Gate(), measured(changed=6, over_base=interval(0.0, 0.3))).reasons[0]


@pytest.mark.parametrize(("examples", "remedy"), [(0, "Set splits.test above 0"), (4, "raise splits.test")])
def test_too_few_examples_show_nothing(examples: int, remedy: str) -> None:
    verdict = judge(Gate(), measured(examples=examples))
    assert not verdict.passed
    assert remedy in verdict.reasons[0]
    assert judge(Gate(promote="always"), measured(examples=examples)).passed


def test_gate_promote_overrules_the_scores_and_the_reason_says_so() -> None:
    worse = measured(over_base=interval(-0.4, -0.1))
    always = judge(Gate(promote="always"), worse)
    assert always.passed and not always.shown
    assert "'always' (by its scores it would not pass)" in always.reasons[0]
    never = judge(Gate(promote="never"), measured())
    assert not never.passed and never.shown
    assert "'never' (by its scores it would not fail)" in never.reasons[0]


def test_refused_requests_are_counted_in_the_reasons() -> None:
    assert any("3 of 40 requests were refused" in reason for reason in judge(Gate(), measured(refused=3)).reasons)


def test_the_metric_is_accuracy_for_labels_and_rouge_l_for_text_unless_named() -> None:
    assert gate_metric(Gate(), Task(labels=("a", "b")))[0] == "accuracy"
    assert gate_metric(Gate(), Task())[0] == "rouge_l"
    assert gate_metric(Gate(metric="macro_f1"), Task())[0] == "macro_f1"


def test_the_metric_is_right_calls_where_at_least_half_of_the_references_call_a_tool() -> None:
    assert gate_metric(Gate(), Task(calls=0.5))[0] == "tool_call_arguments"
    assert gate_metric(Gate(), Task(labels=("a", "b"), calls=0.4))[0] == "accuracy"
    assert gate_metric(Gate(metric="tool_call_name"), Task())[0] == "tool_call_name"


@pytest.mark.parametrize(
    ("task", "metric"),
    [(Task(structured=0.5), "json_fields"), (Task(sql=0.6), "sql_match"), (Task(sql=0.4), "rouge_l")],
)
def test_the_metric_of_structured_output_is_its_fields_and_of_sql_the_statement(task: Task, metric: str) -> None:
    assert gate_metric(Gate(), task)[0] == metric

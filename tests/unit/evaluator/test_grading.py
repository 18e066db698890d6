"""Graders of the job as metrics, and a judge of pairs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from shared.events import EvalCompleted, JobSpec
from tests.support.fakes.language_model import FakeModel
from tests.support.fakes.store import FakeStore
from tests.unit.evaluator.test_work import BASE, CITIES, TUNED, chat_rows, models, request_for, run

JUDGE = "judge-model"
EXACT = {
    "type": "string_check",
    "name": "exact",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
    "operation": "eq",
}
ALIKE = {
    "type": "text_similarity",
    "name": "alike",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
    "evaluation_metric": "fuzzy_match",
}
SCORE = {
    "type": "score_model",
    "name": "polite",
    "model": JUDGE,
    "range": [1, 5],
    "input": [{"role": "user", "content": "Rate the politeness: {{sample.output_text}}"}],
}
LABEL = {
    "type": "label_model",
    "name": "tone",
    "model": JUDGE,
    "labels": ["warm", "cold"],
    "passing_labels": ["warm"],
    "input": [{"role": "user", "content": "Which tone? {{item.prompt}} {{sample.output_text}}"}],
}
PARTS = {name: {**part, "name": name} for name, part in (("exact", EXACT), ("alike", ALIKE))}
MULTI = {"type": "multi", "name": "both", "graders": PARTS, "calculate_output": "0.5 * exact + 0.5 * alike"}


def judge(text: str) -> str:
    """Polite answers get a 5 of 5, and a warm tone; the polite one of a pair wins."""
    if "<answer A>" in text:
        return '{"label": "A"}' if "Kind regards" in text.split("<answer B>", maxsplit=1)[0] else '{"label": "B"}'
    polite = "Kind regards" in text
    if text.startswith("Rate"):
        return '{"result": 5}' if polite else '{"result": 2}'
    return '{"label": "warm"}' if polite else "It is Cold."


async def evaluated(says: Any = judge, **spec: Any) -> tuple[EvalCompleted, dict[str, Any], str, FakeModel]:
    objects, model = FakeStore(), FakeModel({**models(), JUDGE: says})
    request = await request_for(objects, chat_rows(CITIES), chat_rows(CITIES))
    event, _ = await run(objects, model, request, **spec)
    return event, json.loads(await objects.read(event.report)), (await objects.read(event.html)).decode(), model


async def test_every_kind_of_grader_is_a_metric_with_an_interval_and_may_decide_the_gate() -> None:
    event, report, page, model = await evaluated(
        evaluation={"graders": [EXACT, ALIKE, SCORE, LABEL, MULTI]}, gate={"metric": "grader:polite"}
    )
    assert (event.metric, event.passed) == ("grader:polite", True)
    assert {name: event.scores["tuned"][f"grader:{name}"] for name in ("exact", "alike", "polite", "tone", "both")} == {
        "exact": 1.0, "alike": 1.0, "polite": 1.0, "tone": 1.0, "both": 1.0
    }  # fmt: skip
    assert event.scores["base"]["grader:polite"] == 0.25  # 2 on a scale from 1 to 5
    assert event.scores["base"]["grader:tone"] == 0.0
    assert 0 < event.scores["base"]["grader:both"] < 0.5
    assert report["evaluation"]["over_base"]["grader:polite"]["low"] == 0.75
    assert "Better than the base: polite 0.250 → 1.000" in event.reasons[0] and ">polite <span" in page
    asked = [body for body in model.requests if body["model"] == JUDGE]
    assert len(asked) == 2 * (12 + 12)  # base and few-shot gave the same answer to each row, which is graded once


async def test_what_cannot_be_graded_counts_as_nothing_and_the_report_says_how_often() -> None:
    event, report, page, _ = await evaluated(lambda text: "I would rather not.", evaluation={"graders": [SCORE]})
    assert event.scores["tuned"]["grader:polite"] == 0.0 and event.passed
    assert report["grading"]["failed"] == {"grader:polite": {"model_grader_parse_error": 36}}
    assert "polite could not grade 36 (model grader parse error) of 36 answers" in page


async def test_grades_of_an_earlier_attempt_are_used_again() -> None:
    objects = FakeStore()
    request = await request_for(objects, chat_rows(CITIES), chat_rows(CITIES))
    asked = []
    for number in (1, 2):
        model = FakeModel({**models(), JUDGE: judge})
        await run(objects, model, request, number=number, evaluation={"graders": [SCORE], "few_shot": 0})
        asked.append(sum(body["model"] == JUDGE for body in model.requests))
    assert asked == [24, 0]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"evaluation": {"graders": [{**EXACT, "operation": "is"}]}}, r"graders\[0\]\.operation"),
        ({"evaluation": {"graders": [{"type": "python", "name": "x"}]}}, "python graders do not run here"),
        ({"evaluation": {"graders": [{**EXACT, "input": "{{answer}}"}]}}, "begins with neither item nor sample"),
        ({"evaluation": {"graders": [EXACT, EXACT]}}, "the same name"),
        ({"gate": {"metric": "grader:polite"}, "evaluation": {"graders": [EXACT]}}, "there is grader:exact"),
    ],
)
def test_a_grader_that_cannot_run_is_refused_with_the_job_and_not_after_its_training(spec: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        JobSpec.model_validate(spec)


async def test_a_judge_sees_each_pair_twice_with_positions_swapped() -> None:
    _, report, page, model = await evaluated(evaluation={"judge": {"model": JUDGE, "criteria": "politeness"}})
    found = report["pairwise"]
    assert (found["wins"], found["ties"], found["losses"], found["agreement"]) == (12, 0, 0, 1.0)
    assert found["over_base"]["low"] == 1.0
    asked = [body["messages"] for body in model.requests if body["model"] == JUDGE]
    assert len(asked) == 24 and all("politeness" in messages[0]["content"] for messages in asked)
    assert page.count(">judge: tuned</span>") == 12
    assert "<b>12</b> better than the base" in page and "the judge said the same of 100 %" in page


async def test_a_judge_that_always_prefers_the_first_answer_decides_nothing() -> None:
    _, report, _, _ = await evaluated(lambda text: '{"label": "A"}', evaluation={"judge": {"model": JUDGE}})
    found = report["pairwise"]
    assert (found["wins"], found["ties"], found["losses"], found["agreement"]) == (0, 12, 0, 0.0)


async def test_a_judge_without_a_verdict_is_counted_and_ends_nothing() -> None:
    event, report, page, _ = await evaluated(lambda text: "Both are fine!", evaluation={"judge": {"model": JUDGE}})
    assert event.passed and report["pairwise"]["unjudged"] == 12
    assert "The judge gave no verdict" in page


async def test_without_test_rows_a_grader_that_decides_has_nothing_to_say() -> None:
    objects, model = FakeStore(), FakeModel({**models(), JUDGE: judge})
    request = await request_for(objects, None, chat_rows(CITIES))
    evaluation = {"graders": [SCORE], "judge": {"model": JUDGE}}
    event, _ = await run(objects, model, request, evaluation=evaluation, gate={"metric": "grader:polite"})
    assert (event.metric, event.passed, event.examples) == ("grader:polite", False, 0)


async def test_equal_answers_are_a_tie_that_nobody_is_asked_about() -> None:
    objects = FakeStore()
    model = FakeModel({BASE: lambda text: "Soon.", TUNED: lambda text: "Soon.", JUDGE: judge})
    request = await request_for(objects, chat_rows(CITIES), chat_rows(CITIES))
    event, _ = await run(objects, model, request, evaluation={"judge": {"model": JUDGE}})
    assert json.loads(await objects.read(event.report))["pairwise"]["ties"] == 12
    assert not [body for body in model.requests if body["model"] == JUDGE]

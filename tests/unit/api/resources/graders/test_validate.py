"""POST /v1/fine_tuning/alpha/graders/validate."""

from __future__ import annotations

from typing import Any, cast

import pytest
from openai import AsyncOpenAI, BadRequestError

from tests.unit.api.conftest import error_of
from tests.unit.api.resources.graders.conftest import KEY, Graders

STRING: dict[str, Any] = {
    "type": "string_check",
    "name": "exact",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "eq",
}
TEXT: dict[str, Any] = {
    "type": "text_similarity",
    "name": "alike",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "evaluation_metric": "fuzzy_match",
}
SCORE: dict[str, Any] = {
    "type": "score_model",
    "name": "judge",
    "model": "the-model",
    "input": [
        {"role": "developer", "content": "Give a score."},
        {"role": "user", "content": [{"type": "input_text", "text": "{{item.answer}}?"}, "{{sample.output_text}}"]},
    ],
}
LABEL: dict[str, Any] = {
    "type": "label_model",
    "name": "tone",
    "model": "the-model",
    "input": [{"role": "user", "content": {"type": "input_text", "text": "{{sample.output_text}}"}}],
    "labels": ["kind", "rude"],
    "passing_labels": ["kind"],
}
MULTI: dict[str, Any] = {
    "type": "multi",
    "name": "all",
    "graders": {"exact": STRING, "alike": TEXT},
    "calculate_output": "0.5 * exact + 0.5 * alike",
}
PYTHON: dict[str, Any] = {"type": "python", "name": "code", "source": "def grade(sample, item): return 1"}
ONE = MULTI | {"graders": STRING, "calculate_output": "exact"}
"""Its graders are one grader, as the type of the client has it."""
FULL_SCORE = SCORE | {
    "range": [1, 5],
    "sampling_params": {
        "temperature": 0,
        "top_p": 1,
        "seed": 42,
        "max_completions_tokens": 100,
        "reasoning_effort": None,
    },
}


@pytest.mark.parametrize(
    "grader",
    [
        STRING,
        STRING | {"pass_threshold": 0.5},
        TEXT,
        TEXT | {"evaluation_metric": "rouge_5"},
        SCORE,
        FULL_SCORE,
        LABEL,
        MULTI,
        MULTI | {"graders": STRING, "calculate_output": "exact"},
        SCORE | {"range": None},
    ],
    ids=lambda grader: grader["type"],
)
async def test_a_valid_grader_comes_back_as_it_was_sent(graders: Graders, grader: dict[str, Any]) -> None:
    answer = await graders.post("validate", {"grader": grader})
    assert (answer.status_code, answer.json()) == (200, {"grader": grader})


def without(grader: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in grader.items() if name != field}


def multi(**graders: Any) -> dict[str, Any]:
    return MULTI | {"graders": graders, "calculate_output": "1"}


def asked(content: Any, role: str = "user") -> dict[str, Any]:
    return SCORE | {"input": [{"role": role, "content": content}]}


@pytest.mark.parametrize(
    ("grader", "param", "told"),
    [
        (None, "grader", "must be an object"),
        ("exact", "grader", "must be an object"),
        ([], "grader", "must be an object"),
        ({}, "grader.type", "one of string_check, text_similarity, score_model, label_model, multi"),
        ({"type": "guess"}, "grader.type", "must be one of"),
        ({"type": ["multi"]}, "grader.type", "must be one of"),
        (PYTHON, "grader.type", "no sandbox"),
        (without(STRING, "name"), "grader.name", "missing"),
        (without(STRING, "reference"), "grader.reference", "missing"),
        (STRING | {"refrence": ""}, "grader.refrence", "no such field"),
        (STRING | {"operation": "regex"}, "grader.operation", "'eq', 'ne', 'like' or 'ilike'"),
        (STRING | {"input": 5}, "grader.input", "string"),
        (STRING | {"input": "x" * 300_000}, "grader.input", "at most 262144"),
        (STRING | {"input": "{{answer}}"}, "grader.input", "{{item.answer}}"),
        (STRING | {"reference": "{{item.}}"}, "grader.reference", "is no path"),
        (TEXT | {"evaluation_metric": "meteor"}, "grader.evaluation_metric", "dictionary"),
        (TEXT | {"evaluation_metric": "rouge_6"}, "grader.evaluation_metric", "rouge_5"),
        (SCORE | {"input": []}, "grader.input", "at least 1"),
        (SCORE | {"input": "text"}, "grader.input", "list"),
        (SCORE | {"range": [1, 0]}, "grader.range", "less than"),
        (SCORE | {"range": [1]}, "grader.range", "at least 2"),
        (SCORE | {"range": ["a", 1]}, "grader.range[0]", "number"),
        (SCORE | {"sampling_params": {"temperature": 3}}, "grader.sampling_params.temperature", "less than or equal"),
        (SCORE | {"sampling_params": {"top_k": 3}}, "grader.sampling_params.top_k", "no such field"),
        (asked("x", role="robot"), "grader.input[0].role", "'user'"),
        (asked(7), "grader.input[0].content", "input_text"),
        (asked([]), "grader.input[0].content", "1 to 64"),
        (asked({"type": "input_image", "image_url": "u"}), "grader.input[0].content", "no images"),
        (asked(["a", {"type": "input_text"}]), "grader.input[0].content", "input_text"),
        (asked("{{x}}"), "grader.input[0].content", "{{item.x}}"),
        (LABEL | {"passing_labels": ["good"]}, "grader.passing_labels", "'good' is not one of the labels"),
        (MULTI | {"calculate_output": "exact + style"}, "grader.calculate_output", "'style'"),
        (MULTI | {"calculate_output": 1}, "grader.calculate_output", "string"),
        (without(MULTI, "calculate_output"), "grader.calculate_output", "missing"),
        (without(MULTI, "graders"), "grader.graders", "1 to 16"),
        (multi(), "grader.graders", "1 to 16"),
        (multi(**{f"g{number}": STRING for number in range(17)}), "grader.graders", "1 to 16"),
        (multi(**{"a b": STRING}), "grader.graders", "letters, digits and _"),
        (multi(max=STRING), "grader.graders", "none of min, max"),
        (multi(a=MULTI), "grader.graders.a.type", "cannot hold another"),
        (multi(a=PYTHON), "grader.graders.a.type", "no sandbox"),
        (multi(a=None), "grader.graders.a", "must be an object"),
        (multi(a=without(STRING, "input")), "grader.graders.a.input", "missing"),
        (multi(a=STRING | {"input": "{{x}}"}), "grader.graders.a.input", "{{item.x}}"),
    ],
)
async def test_what_is_wrong_with_a_grader_is_told(graders: Graders, grader: Any, param: str, told: str) -> None:
    answer = await graders.post("validate", {"grader": grader})
    error = error_of(answer)
    assert (answer.status_code, error["param"]) == (400, param)
    assert told in error["message"] and param in error["message"]
    assert error["code"] in ("invalid_grader", "unsupported_grader")


async def test_the_official_client(graders: Graders) -> None:
    async with AsyncOpenAI(base_url=f"{graders.url}/v1", api_key=KEY) as client:
        found = await client.fine_tuning.alpha.graders.validate(grader=cast(Any, STRING))
        assert found.grader is not None and found.grader.name == "exact"
        with pytest.raises(BadRequestError) as refused:
            await client.fine_tuning.alpha.graders.validate(grader=cast(Any, PYTHON))
    assert (refused.value.code, refused.value.param) == ("unsupported_grader", "grader.type")


async def test_a_key_is_needed(graders: Graders) -> None:
    for action in ("validate", "run"):
        assert (await graders.post(action, {"grader": STRING}, authorization="Bearer wrong")).status_code == 401

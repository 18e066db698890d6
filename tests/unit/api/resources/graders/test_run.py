"""POST /v1/fine_tuning/alpha/graders/run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI
from starlette.responses import PlainTextResponse, Response

from services.api.app import make_app
from services.api.resources.dependencies import Dependencies
from shared.graders.domain.graders import ScoreModel
from shared.graders.judge import MAX_ANSWER, Judge
from tests.support.fakes.servers import Server, refusing_port
from tests.unit.api.conftest import URL, Api, error_of
from tests.unit.api.resources.graders.conftest import KEY, Graders, answered, refused
from tests.unit.api.resources.graders.test_validate import (
    FULL_SCORE,
    LABEL,
    MULTI,
    PYTHON,
    SCORE,
    STRING,
    TEXT,
)

NO_ERRORS = {
    "formula_parse_error": False,
    "sample_parse_error": False,
    "truncated_observation_error": False,
    "unresponsive_reward_error": False,
    "invalid_variable_error": False,
    "other_error": False,
    "python_grader_server_error": False,
    "python_grader_server_error_type": None,
    "python_grader_runtime_error": False,
    "python_grader_runtime_error_details": None,
    "model_grader_server_error": False,
    "model_grader_refusal_error": False,
    "model_grader_parse_error": False,
    "model_grader_server_error_details": None,
}
ITEM = {"answer": "Paris"}


def flags(found: dict[str, Any]) -> set[str]:
    """The errors that are set. Without a reward, there must be a reason."""
    errors = found["metadata"]["errors"]
    assert set(errors) == set(NO_ERRORS)
    raised = {name for name, value in errors.items() if value is True}
    assert not raised or found["reward"] == 0
    return raised


async def test_the_whole_answer_of_a_string_check(graders: Graders) -> None:
    found = await graders.run(STRING, "Paris", ITEM)
    assert found["metadata"].pop("execution_time") >= 0
    assert found == {
        "reward": 1.0,
        "sub_rewards": {},
        "model_grader_token_usage_per_model": {},
        "metadata": {
            "name": "exact",
            "type": "string_check",
            "scores": {},
            "token_usage": None,
            "sampled_model_name": None,
            "errors": NO_ERRORS,
        },
    }
    assert (await graders.run(STRING, "Rome", ITEM))["reward"] == 0.0


async def test_a_similarity(graders: Graders) -> None:
    assert (await graders.run(TEXT, "paris", ITEM))["reward"] == pytest.approx(0.8)


async def test_the_answer_that_older_clients_send(graders: Graders) -> None:
    grader = STRING | {"reference": "{{item.reference_answer}}"}
    answer = await graders.post("run", {"grader": grader, "model_sample": "7", "reference_answer": 7})
    assert answer.json()["reward"] == 1.0


@pytest.mark.parametrize(
    ("grader", "flag"),
    [
        (STRING | {"input": "{{item.nothing}}"}, "invalid_variable_error"),
        (STRING | {"input": "{{unknown}}"}, "invalid_variable_error"),
        (STRING | {"input": "{{sample.output_json.x}}"}, "sample_parse_error"),
        (SCORE | {"input": [{"role": "user", "content": "{{item.nothing}}"}]}, "invalid_variable_error"),
        (MULTI | {"calculate_output": "exact / (exact - exact)"}, "formula_parse_error"),
        (
            MULTI | {"graders": {"exact": STRING | {"input": "{{item.nothing}}"}}, "calculate_output": "1 - exact"},
            "invalid_variable_error",
        ),
    ],
)
async def test_what_is_wrong_with_a_sample_is_a_flag(graders: Graders, grader: dict[str, Any], flag: str) -> None:
    assert flags(await graders.run(grader, "no JSON", ITEM)) == {flag}
    assert graders.endpoint.bodies == []


async def test_a_multi_grader(graders: Graders) -> None:
    grader = MULTI | {
        "graders": {"exact": STRING, "alike": TEXT, "judge": SCORE},
        "calculate_output": "max(exact, alike) / 2 + judge ^ 2",
    }
    found = await graders.run(grader, "paris", ITEM)
    assert found["reward"] == pytest.approx(0.4 + 0.5625)
    assert found["sub_rewards"] == {"exact": 0.0, "alike": pytest.approx(0.8), "judge": 0.75}
    assert found["metadata"]["scores"] == found["sub_rewards"]
    assert (found["metadata"]["token_usage"], found["metadata"]["sampled_model_name"]) == (24, "the-model")
    assert flags(found) == set()


# --- models that grade --------------------------------------------------------------------------------------------


async def test_a_model_is_asked_as_the_client(graders: Graders) -> None:
    project = {"openai-project": "proj_1"}
    trace = "0af7651916cd43dd8448eb211c80319c"
    found = await graders.run(SCORE, "London", ITEM, traceparent=f"00-{trace}-b7ad6b7169203331-01", **project)
    usage = {"prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 24, "cached_tokens": 0}
    assert found["reward"] == 0.75
    assert found["model_grader_token_usage_per_model"] == {"the-model": usage}
    assert (found["metadata"]["token_usage"], found["metadata"]["sampled_model_name"]) == (24, "the-model")
    [headers], [body] = graders.endpoint.headers, graders.endpoint.bodies
    assert (headers["authorization"], headers["openai-project"]) == (f"Bearer {KEY}", "proj_1")
    assert trace in headers["traceparent"]
    assert body["model"] == "the-model"
    assert body["messages"] == [
        {"role": "system", "content": "Give a score."},
        {"role": "user", "content": [{"type": "text", "text": "Paris?"}, {"type": "text", "text": "London"}]},
    ]
    assert body["response_format"]["type"] == "json_schema"


async def test_sampling_params_are_passed_on(graders: Graders) -> None:
    graders.endpoint.answer = lambda body: answered("Score: 4/5")
    assert (await graders.run(FULL_SCORE, "x", ITEM))["reward"] == 4
    [body] = graders.endpoint.bodies
    assert (body["temperature"], body["top_p"], body["seed"], body["max_completion_tokens"]) == (0, 1, 42, 100)
    assert "reasoning_effort" not in body


async def test_a_server_without_structured_output_is_asked_without(graders: Graders) -> None:
    def plain(body: dict[str, Any]) -> Response:
        return refused(400, "response_format?") if "response_format" in body else answered("0.5")

    graders.endpoint.answer = plain
    assert (await graders.run(SCORE, "x", ITEM))["reward"] == 0.5


async def test_a_model_with_a_small_context_is_asked_for_as_much_as_fits(graders: Graders) -> None:
    def small(body: dict[str, Any]) -> Response:
        return refused(400, "too long") if "max_completion_tokens" in body else answered('{"result": 1}')

    graders.endpoint.answer = small
    assert (await graders.run(SCORE, "x", ITEM))["reward"] == 1
    assert "response_format" in graders.endpoint.bodies[-1]


@pytest.mark.parametrize(
    ("answer", "expected", "details"),
    [
        (answered("no idea"), {"model_grader_parse_error"}, None),
        (answered(None), {"model_grader_parse_error"}, None),
        (answered('{"result": 7}'), {"model_grader_parse_error"}, None),
        (answered('{"res', finish_reason="length"), {"model_grader_parse_error", "truncated_observation_error"}, None),
        (answered(None, refusal="I won't."), {"model_grader_refusal_error"}, None),
        (refused(404, "There is no model."), {"model_grader_server_error"}, "404: There is no model."),
        (refused(400, "Bad."), {"model_grader_server_error"}, "400: Bad."),
        (refused(503, "Sleeping."), {"model_grader_server_error"}, "503: Sleeping."),
        (PlainTextResponse("oops", 500), {"model_grader_server_error"}, "500: oops"),
        (PlainTextResponse("oops"), {"model_grader_server_error"}, "not that of an OpenAI server"),
        (PlainTextResponse("[" * 100_000), {"model_grader_server_error"}, "not that of an OpenAI server"),
        (PlainTextResponse('{"choices": [{"message": 1}]}'), {"model_grader_server_error"}, "OpenAI server"),
        (PlainTextResponse("x" * (MAX_ANSWER + 1)), {"model_grader_server_error"}, "more than"),
        (PlainTextResponse("", 307, {"location": "http://127.0.0.1:1/"}), {"model_grader_server_error"}, "307"),
    ],
)
async def test_what_a_model_answers_wrong_is_a_flag(
    graders: Graders, answer: Response, expected: set[str], details: str | None
) -> None:
    graders.endpoint.answer = lambda body: answer
    found = await graders.run(SCORE, "x", ITEM)
    assert flags(found) == expected
    told = found["metadata"]["errors"]["model_grader_server_error_details"]
    assert (told is None) if details is None else (details in told)


async def test_an_endpoint_that_is_away_is_a_flag(api: Api) -> None:
    with refusing_port() as port:
        dependencies = Dependencies(
            api.database, api.projection, api.objects, api.bus, URL, inference_url=f"http://127.0.0.1:{port}"
        )
        async with (
            Server(make_app(dependencies, ())).running() as server,
            AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client,
        ):
            grader: Any = SCORE
            found = await client.fine_tuning.alpha.graders.run(grader=grader, model_sample="x", item=ITEM)
    assert found.metadata.errors.api_model_grader_server_error is True
    assert "does not answer" in str(found.metadata.errors.api_model_grader_server_error_details)


async def test_a_model_that_does_not_answer_in_time_is_a_flag() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        grader = ScoreModel.model_validate(SCORE)
        outcome = await Judge(f"http://127.0.0.1:{port}", timeout=0.05).ask(grader, ["a", ["b", "c"]], {})
    assert outcome.errors.unresponsive_reward_error and outcome.errors.model_grader_server_error
    assert outcome.reward == 0


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ({}, "grader", "object"),
        ({"grader": PYTHON, "model_sample": ""}, "grader.type", "no sandbox"),
        ({"grader": LABEL, "model_sample": ""}, "grader.type", "evaluations only"),
        (
            {"grader": MULTI | {"graders": {"exact": STRING, "alike": LABEL}}, "model_sample": "", "item": ITEM},
            "grader.graders.alike.type",
            "evaluations only",
        ),
        ({"grader": STRING}, "model_sample", "string"),
        ({"grader": STRING, "model_sample": {"a": 1}}, "model_sample", "string"),
        ({"grader": STRING, "model_sample": "", "item": [1]}, "item", "object"),
        ({"grader": TEXT, "model_sample": "x" * 40_000, "item": ITEM}, "grader", "at most 32,768"),
        (
            {"grader": STRING | {"input": "{{sample.output_text}}" * 99}, "model_sample": "x" * 40000, "item": ITEM},
            "grader",
            "1,048,576",
        ),
        (
            {
                "grader": SCORE | {"input": [{"role": "user", "content": ["{{sample.output_text}}"] * 64}] * 64},
                "model_sample": "x" * 500_000,
            },
            "grader",
            "1,048,576",
        ),
    ],
)
async def test_what_cannot_run_is_refused(graders: Graders, body: dict[str, Any], param: str, told: str) -> None:
    answer = await graders.post("run", body)
    error = error_of(answer)
    assert (answer.status_code, error["param"]) == (400, param)
    assert told in error["message"]


async def test_large_texts_do_not_stop_the_service(graders: Graders) -> None:
    """While some of the largest comparisons run, the service answers others."""
    different = "".join(chr(0x4E00 + number % 20_000) for number in range(30_000))
    many = {f"g{number}": TEXT | {"evaluation_metric": "rouge_l"} for number in range(4)}
    grader = MULTI | {"graders": many, "calculate_output": "g0"}
    heavy = asyncio.create_task(graders.run(grader, different, {"answer": different[::-1]}))
    answers = 0
    while not heavy.done():
        assert (await graders.post("validate", {"grader": STRING})).status_code == 200
        answers += 1
    assert (await heavy)["reward"] < 1
    assert answers > 3


# --- the official client ------------------------------------------------------------------------------------------


async def test_the_official_clients(graders: Graders) -> None:
    grader: Any = MULTI | {"graders": {"exact": STRING, "judge": SCORE}, "calculate_output": "(exact + judge) / 2"}
    async with AsyncOpenAI(base_url=f"{graders.url}/v1", api_key=KEY) as client:
        found = await client.fine_tuning.alpha.graders.run(grader=grader, model_sample="Paris", item=ITEM)
    assert found.reward == 0.875
    assert found.metadata.errors.api_model_grader_parse_error is False
    assert found.api_model_grader_token_usage_per_model["the-model"]

    def synchronously() -> float:
        with OpenAI(base_url=f"{graders.url}/v1", api_key=KEY) as client:
            return client.fine_tuning.alpha.graders.run(grader=grader, model_sample="Rome", item=ITEM).reward

    assert await asyncio.to_thread(synchronously) == 0.375

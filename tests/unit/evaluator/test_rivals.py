"""Rivals behind endpoints of others: quality, speed and price beside ours; what they do wrong is theirs."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from services.evaluator.domain.answers import Answer
from services.evaluator.domain.cost import per_thousand
from services.evaluator.domain.questions.prompts import Prompt
from services.evaluator.rivals.client import RivalTrouble, StreamingEndpoint
from services.evaluator.work import EvaluateWork
from shared.events import EvalCompleted, Price
from shared.settings import EvaluatorSettings, InferenceSettings, Settings
from tests.support.data.jobs import make_attempt
from tests.support.fakes.language_model import FakeModel, serve
from tests.support.fakes.store import FakeStore
from tests.unit.evaluator.test_work import CITIES, chat_rows, house_style, job, models, question, request_for

STRONG = "strong-model"


def strong(text: str) -> str:
    return house_style(question(text)) if question(text) != CITIES[0] else "Soon."


async def evaluated(
    theirs: FakeModel, objects: FakeStore, number: int = 1, allowed: bool = True, **rival: Any
) -> dict[str, Any]:
    ours = FakeModel(models())
    request = await request_for(objects, chat_rows(CITIES), chat_rows(CITIES))
    async with serve(ours) as url, serve(theirs) as elsewhere:
        endpoints = {"big": {"base_url": f"{elsewhere}/v1", "api_key": "sk-secret"}} if allowed else {}
        settings = Settings(
            inference=InferenceSettings(url=url),
            evaluator=EvaluatorSettings.model_validate({"timeout_seconds": 60, "endpoints": endpoints}),
        )
        price = {"input_per_million": 10, "output_per_million": 40}
        named = {"name": "the-big-one", "endpoint": "big", "model": STRONG, "price": price, **rival}
        evaluation = {"rivals": [named], "own_price": {"input_per_million": 1, "output_per_million": 4}}
        attempt, _ = make_attempt(job(evaluation=evaluation), "evaluator", number=number, request=request)
        event = await EvaluateWork(objects, settings)(attempt)
    assert isinstance(event, EvalCompleted) and event.passed
    page = (await objects.read(event.html)).decode()
    return {**json.loads(await objects.read(event.report)), "page": page, "ours": ours}


async def test_quality_speed_price_and_saving_stand_beside_ours_and_the_key_goes_only_there() -> None:
    objects, theirs = FakeStore(), FakeModel({STRONG: strong})
    report = await evaluated(theirs, objects)
    rival = report["rivals"]["rivals"][0]
    assert rival["scores"]["exact_match"] == 11 / 12
    assert rival["over"]["rouge_l"]["mean"] > 0
    assert 0 < rival["speed"]["first_token_median"] <= rival["speed"]["total_median"]
    assert report["rivals"]["speed"]["first_token_median"] > 0
    assert rival["saving"] == pytest.approx(0.9, abs=0.02)
    assert set(report["prices"]) == {"base", "few_shot", "tuned"}
    assert "the-big-one" in report["page"] and f"<b>{100 * rival['saving']:.0f} %</b>" in report["page"]
    assert {headers["authorization"] for headers in theirs.headers} == {"Bearer sk-secret"}
    assert not any("sk-secret" in str(headers) for headers in report["ours"].headers)
    assert b"sk-secret" not in b"".join(held.data for held in objects.held.values())


async def test_an_attempt_that_comes_again_does_not_pay_twice() -> None:
    objects, theirs = FakeStore(), FakeModel({STRONG: strong})
    await evaluated(theirs, objects)
    again = FakeModel({STRONG: strong})
    report = await evaluated(again, objects, number=2)
    assert not again.requests and report["rivals"]["rivals"][0]["scores"]["exact_match"] == 11 / 12


async def test_a_rival_that_refuses_is_named_and_ends_nothing() -> None:
    report = await evaluated(FakeModel({}), FakeStore())
    rival = report["rivals"]["rivals"][0]
    assert "(404)" in rival["trouble"] and not rival.get("over")
    assert "Not measured: the endpoint refuses the request (404)" in report["page"]


async def test_rows_and_keys_go_only_where_the_operator_allows() -> None:
    theirs = FakeModel({STRONG: strong})
    none = await evaluated(theirs, FakeStore(), allowed=False)
    assert "TUNESTREAM_EVALUATOR__ENDPOINTS" in none["rivals"]["rivals"][0]["trouble"]
    other = await evaluated(theirs, FakeStore(), base_url="http://169.254.169.254/v1")
    assert "does not allow; it allows big" in other["rivals"]["rivals"][0]["trouble"]
    assert not theirs.requests


@pytest.mark.parametrize("refused", ["max_tokens", "temperature", "stream_options"])
async def test_a_parameter_that_an_endpoint_refuses_is_left_out(refused: str) -> None:
    theirs = FakeModel({STRONG: strong}, refuses=frozenset({refused}))
    async with serve(theirs) as url, httpx.AsyncClient(base_url=f"{url}/v1") as http:
        prompt = Prompt(messages=({"role": "user", "content": "To Rome?"},))
        answer = await StreamingEndpoint(http).ask(STRONG, [prompt], 64)
    assert answer.text == house_style("Rome") and answer.finish_reason == "stop"
    assert ("max_completion_tokens" in theirs.requests[-1]) == (refused == "max_tokens")


def stream(*lines: str, status: int = 200) -> httpx.Response:
    return httpx.Response(status, text="\n\n".join(lines))


async def asked(*responses: httpx.Response) -> Answer:
    waiting = list(responses)

    async def no_sleep(seconds: float) -> None:
        pass

    async with httpx.AsyncClient(
        base_url="http://x/v1", transport=httpx.MockTransport(lambda request: waiting.pop(0))
    ) as http:
        endpoint = StreamingEndpoint(http, sleep=no_sleep)
        return await endpoint.ask(STRONG, [Prompt(messages=({"role": "user", "content": "?"},))], 64)


async def test_calls_are_put_together_and_a_stream_that_breaks_off_is_asked_for_again() -> None:
    def part(**function: str) -> str:
        call = {"index": 0, "function": function}
        return "data: " + json.dumps({"choices": [{"delta": {"tool_calls": [call]}}]})

    broken = stream('data: {"choices": [{"delta": {"content": "half"}}]}')
    whole = stream(part(name="track", arguments='{"a"'), part(arguments=": 1}"), "data: [DONE]")
    answer = await asked(httpx.Response(503), broken, whole)
    assert [str(call) for call in answer.tool_calls] == ['track({"a": 1})'] and "half" not in answer.text


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refused_key_or_model_is_trouble_at_once(status: int) -> None:
    with pytest.raises(RivalTrouble, match=str(status)):
        await asked(httpx.Response(status, json={"error": {"message": "no"}}))


def test_the_price_of_a_thousand_answers_by_hand() -> None:
    answers = [Answer(prompt_tokens=1_000, completion_tokens=100, latency_seconds=2.0)] * 10
    answers.append(Answer(error="400"))
    assert per_thousand(Price(input_per_million=2, output_per_million=10), answers, 4) == pytest.approx(2 + 1)
    assert per_thousand(Price(per_hour=3.6), answers, 4) == pytest.approx(1000 * 3.6 / 3600 * 2 / 4)
    assert per_thousand(None, answers, 4) is None

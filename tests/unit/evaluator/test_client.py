"""The client with a real HTTP server: what it sends, when it waits, and when it gives up."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from services.evaluator.client import Endpoint, ModelSleeps, connect
from services.evaluator.domain.questions.prompts import Prompt
from shared.errors import ConfigError, TransientError
from shared.settings import EvaluatorSettings, InferenceSettings, Settings
from tests.support.fakes.language_model import FakeModel, serve

HELLO = Prompt(messages=({"role": "user", "content": "hello"},))


def shout(text: str) -> str:
    return text.upper()


class FakeClock:
    """A clock that moves only when something sleeps, and records the pauses."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def time(self) -> float:
        return sum(self.pauses)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


def settings(url: str, **evaluator: Any) -> Settings:
    return Settings(inference=InferenceSettings(url=url), evaluator=EvaluatorSettings(**evaluator))


async def ask(
    model: FakeModel, *prompts: Prompt, name: str = "m", clock: FakeClock | None = None, key: str | None = None
) -> Any:
    clock = clock or FakeClock()
    async with serve(model) as url, connect(settings(url, api_key=key)) as http:
        endpoint = Endpoint(http, patience=60, clock=clock.time, sleep=clock.sleep)
        return await endpoint.ask(name, prompts or (HELLO,), 32)


async def test_a_chat_is_asked_greedily_with_the_key_and_counted() -> None:
    model = FakeModel({"m": shout})
    answer = await ask(model, key="secret")
    assert (answer.text, answer.finish_reason, answer.completion_tokens) == ("HELLO", "stop", 5)
    assert model.headers[0]["authorization"] == "Bearer secret"
    assert model.requests[0] == {
        "model": "m",
        "temperature": 0,
        "max_tokens": 32,
        "messages": [{"role": "user", "content": "hello"}],
    }


async def test_a_text_is_continued_by_the_completions_route() -> None:
    model = FakeModel({"m": shout})
    assert (await ask(model, Prompt(text="go on", stop=("#",)))).text == "GO ON"
    assert (model.requests[0]["prompt"], model.requests[0]["stop"]) == ("go on", ["#"])


async def test_the_client_waits_for_a_busy_or_restarting_server_as_long_as_it_asks() -> None:
    clock = FakeClock()
    model = FakeModel({"m": shout}, failures=[(429, {"retry-after": "7"}), (503, {}), (502, {}), (500, {})])
    assert (await ask(model, clock=clock)).text == "HELLO"
    first, *pauses = clock.pauses
    assert first == 7.0
    assert [longest / 2 <= pause <= longest for pause, longest in zip(pauses, (1.0, 2.0, 4.0), strict=True)] == [
        True
    ] * 3


async def test_an_endpoint_that_stays_down_is_left_within_seconds_and_named() -> None:
    clock = FakeClock()
    down = r"the endpoint at http://.*/v1/ \(TUNESTREAM_INFERENCE__URL\) answers 503$"
    with pytest.raises(TransientError, match=down):
        await ask(FakeModel({}, always_down=True), clock=clock)
    assert 2 <= sum(clock.pauses) <= 10


async def test_a_server_that_is_busy_for_long_is_waited_for() -> None:
    clock = FakeClock()
    assert (
        await ask(FakeModel({"m": shout}, failures=[(429, {"retry-after": "14"})] * 4), clock=clock)
    ).text == "HELLO"
    with pytest.raises(TransientError, match="answers 429"):
        await ask(FakeModel({"m": shout}, failures=[(429, {"retry-after": "14"})] * 5), clock=FakeClock())


async def test_a_model_that_sleeps_while_another_is_trained_is_asked_again_later() -> None:
    clock = FakeClock()
    with pytest.raises(ModelSleeps, match="a training has the GPU of the endpoint at http"):
        await ask(FakeModel({"m": shout}, sleeps=1), clock=clock)
    assert clock.pauses == []


async def test_the_gateway_is_told_how_long_an_evaluation_waits_for_vllm() -> None:
    model = FakeModel({"m": shout})
    await ask(model)
    assert model.headers[0]["prefer"] == "wait=5"


async def test_a_refused_connection_is_a_transient_error() -> None:
    clock = FakeClock()
    async with connect(settings("http://127.0.0.1:9")) as http:
        endpoint = Endpoint(http, patience=5, clock=clock.time, sleep=clock.sleep)
        with pytest.raises(TransientError, match=r"\(TUNESTREAM_INFERENCE__URL\) does not answer: ConnectError"):
            await endpoint.ask("m", (HELLO,), 32)
    assert 2 <= sum(clock.pauses) <= 10


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (httpx.ReadTimeout("x"), TransientError, "TUNESTREAM_EVALUATOR__TIMEOUT_SECONDS"),
        (httpx.DecodingError("x"), TransientError, "does not answer: DecodingError"),
        (httpx.RemoteProtocolError("x"), TransientError, "does not answer: RemoteProtocolError"),
        (httpx.UnsupportedProtocol("x"), ConfigError, "TUNESTREAM_INFERENCE__URL.* cannot be asked"),
        (httpx.TooManyRedirects("x"), ConfigError, "cannot be asked"),
    ],
)
async def test_whatever_breaks_on_the_way_is_no_bug(error: Exception, kind: type[Exception], words: str) -> None:
    def broken(request: httpx.Request) -> httpx.Response:
        raise error

    clock = FakeClock()
    async with httpx.AsyncClient(transport=httpx.MockTransport(broken), base_url="http://me:secret@x/v1") as http:
        with pytest.raises(kind, match=words) as caught:
            await Endpoint(http, patience=60, clock=clock.time, sleep=clock.sleep).ask("m", (HELLO,), 32)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


async def test_an_unknown_model_is_a_wrong_setting_and_not_waited_for() -> None:
    clock = FakeClock()
    with pytest.raises(ConfigError, match=r"does not know the model other.*TUNESTREAM_MODEL__ID"):
        await ask(FakeModel({"m": shout}), name="other", clock=clock)
    assert clock.pauses == []


async def test_a_wrong_key_names_the_setting() -> None:
    with pytest.raises(ConfigError, match="TUNESTREAM_EVALUATOR__API_KEY"):
        await ask(FakeModel({"m": shout}, failures=[(401, {})]))


async def test_a_prompt_that_leaves_less_room_than_max_tokens_gets_half_of_them() -> None:
    model = FakeModel({"m": shout}, context_chars=25)
    assert (await ask(model)).text == "HELLO"
    assert [request["max_tokens"] for request in model.requests] == [32, 16]


async def test_a_prompt_that_is_too_long_is_an_empty_answer_with_its_reason() -> None:
    answer = await ask(FakeModel({"m": shout}, context_chars=3))
    assert answer.text == ""
    assert "maximum context length is 3" in answer.error


async def test_a_shorter_prompt_is_tried_when_the_first_does_not_fit() -> None:
    long = Prompt(messages=({"role": "user", "content": "hello " * 20},))
    answer = await ask(FakeModel({"m": shout}, context_chars=60), long, HELLO)
    assert (answer.text, answer.fallback) == ("HELLO", 1)


async def test_a_shorter_prompt_is_tried_when_the_context_cuts_the_answer() -> None:
    long = Prompt(messages=({"role": "user", "content": "hello " * 20},))
    model = FakeModel({"m": lambda text: text[:30]}, finish_reason="length")
    answer = await ask(model, long, HELLO)
    assert (answer.text, answer.fallback) == ("hello", 1)
    assert len(model.requests) == 2


async def test_tools_are_sent_as_text_to_a_server_without_a_tool_parser() -> None:
    model = FakeModel({"m": shout}, tool_parser=False)
    tools = ({"type": "function", "function": {"name": "f"}},)
    assert (await ask(model, Prompt(messages=HELLO.messages, tools=tools))).text == "HELLO"
    assert model.requests[0]["tool_choice"] == "none"
    assert model.requests[0]["tools"] == list(tools)


def canned(body: Any) -> Callable[[httpx.Request], httpx.Response]:
    return lambda request: httpx.Response(200, json=body)


async def test_a_few_shot_prompt_that_the_template_refuses_loses_solved_examples() -> None:
    solved = Prompt(messages=({"role": "user", "content": "solved"}, *HELLO.messages))
    model = FakeModel({"m": shout}, failures=[(400, {})])
    answer = await ask(model, solved, HELLO)
    assert (answer.text, answer.fallback) == ("HELLO", 1)
    assert (await ask(FakeModel({"m": shout}, failures=[(400, {})]))).error == "400: try later"


async def test_tool_calls_of_an_answer_are_its_text() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    body = {"choices": [{"message": {"content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    async with httpx.AsyncClient(transport=httpx.MockTransport(canned(body)), base_url="http://x/v1") as http:
        answer = await Endpoint(http, patience=1).ask("m", (HELLO,), 32)
    assert (answer.text, answer.finish_reason) == ('f({"a": 1})', "tool_calls")
    assert [(made.name, made.arguments, made.valid) for made in answer.reply().calls] == [("f", '{"a": 1}', True)]


async def test_thoughts_that_the_server_parsed_are_not_in_the_answer() -> None:
    body = {"choices": [{"message": {"content": "yes", "reasoning_content": "why not"}, "finish_reason": "stop"}]}
    async with httpx.AsyncClient(transport=httpx.MockTransport(canned(body)), base_url="http://x/v1") as http:
        answer = await Endpoint(http, patience=1).ask("m", (HELLO,), 32)
    assert answer.reply().text == answer.text == "yes"


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        ({"content": "<think>\nhm"}, {"content": "<think>\nhm\n</think>\n\nyes"}),
        ({"content": None, "reasoning_content": "hm"}, {"content": "yes", "reasoning_content": "hm, so yes"}),
        ({"content": "", "reasoning": "hm"}, {"content": "yes", "reasoning": "hm, so yes"}),
    ],
)
async def test_an_answer_that_is_cut_while_thinking_gets_more_room_as_far_as_the_context_has_it(
    cut: dict[str, Any], whole: dict[str, Any]
) -> None:
    asked: list[int] = []

    def thinker(request: httpx.Request) -> httpx.Response:
        room = json.loads(request.content)["max_tokens"]
        asked.append(room)
        if room > 1_500:
            return httpx.Response(400, json={"error": {"message": "maximum context length is 1500"}})
        message, reason = (whole, "stop") if room > 500 else (cut, "length")
        return httpx.Response(200, json={"choices": [{"message": message, "finish_reason": reason}]})

    async with httpx.AsyncClient(transport=httpx.MockTransport(thinker), base_url="http://x/v1") as http:
        answer = await Endpoint(http, patience=1).ask("m", (HELLO,), 64, thinking=2_048)
        assert (answer.reply().text, asked, answer.cut_in_thoughts) == ("yes", [64, 64 + 2_048, 64 + 1_024], False)
        short = await Endpoint(http, patience=1).ask("m", (HELLO,), 64)
        assert (short.reply().text, short.cut_in_thoughts) == ("", True)


async def test_an_answer_that_is_cut_while_speaking_is_not_asked_for_again() -> None:
    asked: list[httpx.Request] = []

    def speaker(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        message = {"content": "<think>hm</think>on and on", "reasoning_content": None}
        return httpx.Response(200, json={"choices": [{"message": message, "finish_reason": "length"}]})

    async with httpx.AsyncClient(transport=httpx.MockTransport(speaker), base_url="http://x/v1") as http:
        await Endpoint(http, patience=1).ask("m", (HELLO,), 64, thinking=2_048)
    assert len(asked) == 1


@pytest.mark.parametrize("body", [[], {"choices": []}, {"choices": [{"message": None}]}, "text"])
async def test_an_answer_that_is_not_openais_is_an_error_that_says_so(body: Any) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(canned(body)), base_url="http://x/v1") as http:
        with pytest.raises(ConfigError, match=r"TUNESTREAM_INFERENCE__URL.*not that of an OpenAI server"):
            await Endpoint(http, patience=1).ask("m", (HELLO,), 32)


async def test_half_an_emoji_in_an_answer_can_be_written_to_a_file() -> None:
    def half(request: httpx.Request) -> httpx.Response:
        content = rb'{"choices": [{"text": "cut \ud83d", "finish_reason": "length"}]}'
        return httpx.Response(200, content=content, headers={"content-type": "application/json"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(half), base_url="http://x/v1") as http:
        answer = await Endpoint(http, patience=1).ask("m", (Prompt(text="x"),), 32)
    assert answer.text.encode().decode() == "cut \ufffd"


# --- the deployed model ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "champion"),
    [
        (httpx.Response(200, json={"id": "support", "root": "ft:base:org::1"}), "ft:base:org::1"),
        (httpx.Response(200, json={"id": "café", "root": "café"}), None),
        (httpx.Response(200, json={"id": "support"}), None),  # a server that knows no aliases
        (httpx.Response(404, json={"error": {"message": "no"}}), None),
        (httpx.Response(405, text="no"), None),
    ],
)
async def test_the_deployed_model_is_the_one_that_the_alias_names(
    response: httpx.Response, champion: str | None
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.raw_path == b"/v1/models/caf%C3%A9"
        return response

    async with httpx.AsyncClient(base_url="http://x/v1", transport=httpx.MockTransport(answer)) as http:
        assert await Endpoint(http, patience=1).champion("café") == champion


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_an_endpoint_that_does_not_say_what_is_deployed_is_asked_again_later(status: int) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(status))
    async with httpx.AsyncClient(base_url="http://x/v1", transport=transport) as http:
        with pytest.raises(TransientError, match=str(status)):
            await Endpoint(http, patience=1).champion("support")

"""Tool calls through the gateway, as the official client asks for them."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests.support.data.trained_models import BASE, add_trained
from tests.support.scrape import scrape
from tests.unit.inference.conftest import ServiceUnderTest

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Where is order 48213?"}]
TOOLS: list[ChatCompletionToolParam] = [
    {"type": "function", "function": {"name": "order_status", "parameters": {"type": "object", "properties": {}}}}
]
# an argument may be called as the field that the gateway looks for in a stream
ARGUMENTS = '{"order": 48213, "usage": {"prompt_tokens": 9}}'
CALL = {"id": "call_1", "type": "function", "function": {"name": "order_status", "arguments": ARGUMENTS}}


async def test_calls_come_back_as_vllm_parsed_them(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects, "tools")
    service.vllm.called = [CALL]

    answer = await service.client.chat.completions.create(
        model=model, messages=MESSAGES, tools=TOOLS, tool_choice="required", parallel_tool_calls=False
    )

    asked = service.vllm.asked[-1]
    assert (asked["tools"], asked["tool_choice"], asked["parallel_tool_calls"]) == (TOOLS, "required", False)
    [call] = answer.choices[0].message.tool_calls or []
    assert call.model_dump() == CALL
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_calls_are_streamed_piece_by_piece_and_their_tokens_are_counted(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects, "streamed-tools")
    service.vllm.called = [CALL, {**CALL, "id": "call_2"}]
    before = await scrape()

    stream = await service.client.chat.completions.create(model=model, messages=MESSAGES, tools=TOOLS, stream=True)
    chunks = [chunk async for chunk in stream]

    deltas = [delta for chunk in chunks for delta in chunk.choices[0].delta.tool_calls or []]
    for index in (0, 1):
        pieces = [delta.function.arguments or "" for delta in deltas if delta.index == index and delta.function]
        assert len(pieces) == 3 and "".join(pieces) == ARGUMENTS
    assert [delta.id for delta in deltas if delta.id] == ["call_1", "call_2"]
    name, labels = "tunestream_inference_tokens_total", {"model": model, "kind": "completion"}
    assert (await scrape()).value(name, **labels) - before.value(name, **labels) == 2


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ("auto", '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
        ("required", 'tool_choice="required" requires --tool-call-parser to be set'),
    ],
)
async def test_a_base_without_tool_calls_says_what_to_do(service: ServiceUnderTest, choice: Any, says: str) -> None:
    service.vllm.error = (400, {"error": {"message": says, "type": "BadRequestError", "param": None, "code": 400}})

    with pytest.raises(openai.BadRequestError, match=rf"`{BASE}` is served without tool calls.*`tool_choice`") as told:
        await service.client.chat.completions.create(model=BASE, messages=MESSAGES, tools=TOOLS, tool_choice=choice)

    assert (told.value.param, told.value.code) == ("tools", "tools_not_supported")
    assert "--tool-call-parser" not in told.value.message, "a client cannot set options of vLLM"

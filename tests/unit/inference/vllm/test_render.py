"""vLLM's render server on the tiny base: it makes the prompts that we train on, and knows what adapters can change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from transformers import AutoTokenizer

from examples import tiny_base
from shared.conversation import TurnEncoder, sent_messages
from tests.support.render import BASE_ID, render_server
from tests.support.user import ROOT

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

SMALL = replace(tiny_base.Recipe(), chats=40, prose=0.01)
ROWS = [json.loads(line) for line in (ROOT / "examples" / "support.jsonl").read_text().splitlines()[:8]]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with the template of the tiny base, and a tokenizer made in the same way."""
    folder = tmp_path_factory.mktemp("base")
    tiny_base.build(folder, SMALL, quiet=True)
    return folder


@pytest.fixture(scope="session")
def url(base: Path) -> Iterator[str]:
    # options of the real server that must not reach this one
    with render_server(base, "--api-key", "sk-of-the-real-server", "--quantization=bitsandbytes") as url:
        yield url


def test_the_servers_prompts_are_those_that_are_trained(base: Path, url: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    encoder = TurnEncoder(tokenizer, [tokenizer.eos_token_id])
    for row in ROWS:
        messages = sent_messages(row["messages"])
        [turns] = encoder.encode(messages, None, [len(messages) - 1])
        prompt, answer = turns.ids[: turns.trained.index(True)], turns.ids[turns.trained.index(True) :]

        request = {"model": BASE_ID, "messages": messages[:-1]}
        assert ask(url, "render", **request)["token_ids"] == prompt
        # the engine leaves the stop token out
        [choice] = ask(url, "derender", generate_response=generated(answer[:-1]), chat_request=request)["choices"]
        assert choice["message"]["content"] == messages[-1]["content"]


def test_it_reads_calls_as_the_real_server_does(base: Path, url: str) -> None:
    call = '<tool_call>{"name": "track", "arguments": {"order": "48213"}}</tool_call>'
    said = AutoTokenizer.from_pretrained(base)(call)["input_ids"]
    tools = [{"type": "function", "function": {"name": "track", "parameters": {"type": "object"}}}]

    request = {"model": BASE_ID, "messages": [{"role": "user", "content": "Where is it?"}], "tools": tools}
    [choice] = ask(url, "derender", generate_response=generated(said), chat_request=request)["choices"]

    [read] = choice["message"]["tool_calls"]
    assert (read["function"]["name"], json.loads(read["function"]["arguments"])) == ("track", {"order": "48213"})


def generated(ids: list[int]) -> dict[str, object]:
    """What a model that answers with these tokens has generated."""
    return {"request_id": "1", "choices": [{"index": 0, "token_ids": ids, "finish_reason": "stop"}]}


def ask(url: str, what: str, **request: object) -> dict[str, object]:
    answer = httpx.post(f"{url}/v1/chat/completions/{what}", json={"model": BASE_ID, **request}, timeout=60)
    assert answer.status_code == 200, answer.text
    parsed: dict[str, object] = answer.json()
    return parsed

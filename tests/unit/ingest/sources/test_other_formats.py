"""Files in the formats of other providers and other trainers: what they say is understood, or said to be lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.errors import InputError
from tests.unit.ingest.sources.conftest import Mine, jsonl

ASKED = [
    ("system", "Be kind."),
    ("user", "Hi\nall"),
    ("assistant", "Hello"),
    ("user", "Bye"),
    ("assistant", "So long"),
]
RENDERED = {
    "chatml": "".join(f"<|im_start|>{who}\n{text}<|im_end|>\n" for who, text in ASKED) + "<|endoftext|>",
    "llama 3": "<|begin_of_text|>"
    + "".join(f"<|start_header_id|>{who}<|end_header_id|>\n\n{text}<|eot_id|>" for who, text in ASKED),
    "llama 4": "<|begin_of_text|>"
    + "".join(f"<|header_start|>{who}<|header_end|>\n\n{text}<|eot|>" for who, text in ASKED),
    "phi": "".join(f"<|{who}|>\n{text}<|end|>\n" for who, text in ASKED),
    "zephyr": "".join(f"<|{who}|>\n{text}</s>\n" for who, text in ASKED),
    "llama 2": "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi\nall [/INST] Hello </s><s>[INST] Bye [/INST] So long </s>",
}


@pytest.mark.parametrize("name", RENDERED)
def test_a_text_as_a_chat_template_writes_it(name: str, run: Mine) -> None:
    found = run("train.jsonl", jsonl({"text": RENDERED[name]}, {"text": RENDERED[name]}))
    assert found.turns() == ASKED


def test_gemma_calls_the_assistant_model(run: Mine) -> None:
    text = "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n"
    assert run("train.jsonl", jsonl({"text": text})).turns() == [("user", "Hi"), ("assistant", "Hello")]


def test_a_prompt_for_generation_is_no_answer(run: Mine) -> None:
    begun = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    found = run("train.jsonl", jsonl({"text": RENDERED["chatml"]}, {"text": RENDERED["chatml"]}, {"text": begun}))
    assert len(found.rows) == 2 and "(line 3" in found.said


def test_a_text_that_only_mentions_the_marks_stays_a_text(run: Mine) -> None:
    row = {"question": "What is <|im_start|>user?", "answer": "A mark. [INST] is another one, [/INST] too."}
    assert run("train.jsonl", jsonl(row)).turns() == [("user", row["question"]), ("assistant", row["answer"])]


@pytest.mark.parametrize("system", ["Be kind.", [{"type": "text", "text": "Be kind."}]])
def test_a_system_prompt_beside_the_messages(system: Any, run: Mine) -> None:
    """As in Anthropic's format."""
    row = {
        "system": system,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "content": "Hello", "weight": 1},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    [made] = run("train.jsonl", jsonl(row)).rows
    assert made["messages"] == [{"role": "system", "content": "Be kind."}, *row["messages"]]
    assert made["tools"] == row["tools"]


def test_a_system_prompt_that_is_in_the_messages_too_is_not_written_twice(run: Mine) -> None:
    messages = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
    found = run("train.jsonl", jsonl({"system": "S", "messages": messages[1:]}, {"system": "S", "messages": messages}))
    assert [each["messages"][0]["content"] for each in found.rows] == ["S", "system"]


def contents(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "parts": [*parts]}, {"role": "model", "parts": [{"text": "Hello"}]}]


def test_the_format_of_vertex_ai(run: Mine) -> None:
    system = {"role": "system", "parts": [{"text": "Be kind."}]}
    asked = contents({"text": "Hi"}, {"text": "you"})
    found = run("train.jsonl", jsonl({"systemInstruction": system, "contents": asked}))
    assert found.turns() == [("system", "Be kind."), ("user", "Hi\n\nyou"), ("assistant", "Hello")]


@pytest.mark.parametrize(
    ("part", "kind"), [({"inlineData": {"mimeType": "image/png"}}, "inlineData"), ({"type": "image"}, "image")]
)
def test_a_part_that_is_no_text_leaves_the_row_out(part: dict[str, Any], kind: str, run: Mine) -> None:
    asked = [contents({"text": "Hi"}), contents({"text": "?"}, part)]
    found = run("train.jsonl", jsonl(*({"contents": each} for each in asked)))
    assert len(found.rows) == 1 and f"1 say something that is no text (line 2: '{kind}')" in found.said


def test_comments_with_the_roles_of_their_authors(run: Mine) -> None:
    comments = [{"author_role": "end-user", "body": "Help"}, {"author_role": "agent", "body": "Done"}]
    document = {"tickets": [{"id": 1, "subject": "s", "comments": comments}], "count": 1}
    assert run("export.json", json.dumps(document)).turns() == [("user", "Help"), ("assistant", "Done")]


def test_texts_of_one_speaker_are_no_conversations(run: Mine) -> None:
    with pytest.raises(InputError, match="Nothing says which columns"):
        run("train.jsonl", jsonl({"text": "<|im_start|>user\nHi<|im_end|>"}))


@pytest.mark.parametrize("result", [{"celsius": 21}, [{"celsius": 21}, {"celsius": 22}], 21, [21, 22]])
def test_what_a_tool_is_told_and_answers_may_be_any_json(result: Any, run: Mine) -> None:
    called = {"name": "weather", "arguments": {"town": "Bern"}}
    turns = [("human", "How warm?"), ("function_call", called), ("observation", result), ("gpt", "21 degrees.")]
    [row] = run("t.jsonl", jsonl({"conversations": [{"from": who, "value": value} for who, value in turns]})).rows
    assert row["messages"][1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"town": "Bern"}'}
    assert "21" in row["messages"][2]["content"]


@pytest.mark.timeout(20)
def test_a_text_of_blanks_takes_no_time(run: Mine) -> None:
    row = {"text": "<|im_start|>user\nHi<|im_end|><|im_start|>assistant\nA" + " " * 10**6 + "B<|im_end|>"}
    assert len(run("train.jsonl", jsonl(row)).turns()) == 2


@pytest.mark.parametrize("label", [False, "False"])
def test_an_answer_that_is_marked_as_a_bad_one_is_not_learnt(label: Any, run: Mine) -> None:
    """As in TRL's KTO format."""
    rows = [
        {"prompt": "q", "completion": "right", "label": True},
        {"prompt": "q", "completion": "wrong", "label": label},
    ]
    found = run("train.jsonl", jsonl(*rows, {"prompt": "p", "completion": "?"}))
    assert found.turns() == [("user", "q"), ("assistant", "right")] and len(found.rows) == 1
    assert "1 have an answer that is marked as a bad one (line 2)" in found.said
    assert "1 do not say whether their answer is a good one (line 3)" in found.said


def test_a_label_of_another_kind_is_no_verdict(run: Mine) -> None:
    rows = [{"prompt": "q", "completion": "a", "label": label} for label in ("spam", 1)]
    assert [row["completion"] for row in run("train.jsonl", jsonl(*rows)).rows] == ["a", "a"]


def answered(content: str | None, reason: str = "stop", **said: Any) -> list[dict[str, Any]]:
    message = {"role": "assistant", "content": content, "refusal": None, "annotations": [], **said}
    return [{"index": 0, "finish_reason": reason, "logprobs": None, "message": message}]


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
QUESTION = [{"role": "system", "content": "S"}, {"role": "user", "content": "q"}]


@pytest.mark.parametrize(
    "logged",
    [
        lambda choices: {"messages": QUESTION, "tools": TOOLS, "choices": choices, "model": "m"},
        lambda choices: {"request": {"messages": QUESTION, "tools": TOOLS}, "response": {"choices": choices}},
        lambda choices: {"body": {"messages": QUESTION, "tools": TOOLS}, "response": {"body": {"choices": choices}}},
    ],
)
def test_logged_requests_with_their_responses(logged: Any, run: Mine) -> None:
    calls = [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    rows = [answered("a"), answered(None, "tool_calls", tool_calls=calls), answered("a b", "length"), answered("")]
    found = run("log.jsonl", jsonl(*map(logged, rows)))
    first, called = found.rows
    assert first["messages"] == [*QUESTION, {"role": "assistant", "content": "a"}] and first["tools"] == TOOLS
    assert called["messages"][-1] == {"role": "assistant", "tool_calls": calls}
    assert "1 have an answer that was cut off (line 3: its finish_reason is length)" in found.said
    assert "1 have no answer (line 4)" in found.said


def test_messages_and_their_answer_in_columns_of_any_name(run: Mine) -> None:
    row = {"asked": QUESTION, "said": "a"}
    found = run("log.jsonl", jsonl(row), columns={"messages": "asked", "assistant": "said"})
    assert found.turns() == [("system", "S"), ("user", "q"), ("assistant", "a")]

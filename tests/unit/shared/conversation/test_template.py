"""What is sent for a row, and what its template is given."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.conversation import ChatTemplate, Unfit, sent_messages, sent_tools
from tests.support.data.micro_base import make_tokenizer
from tests.unit.shared.conversation.rows import ANSWER, BARE_TOOL, CONVERSATIONS, DUMP, DUMP_PARTS, TOOL, USER


def given(template: str, messages: list[dict[str, Any]], tools: Any = None) -> tuple[Any, Any]:
    text = ChatTemplate(make_tokenizer(template)).text(sent_messages(messages), tools, prompt=False)
    whole = json.JSONDecoder()
    shown, place = whole.raw_decode(text)
    return shown, whole.raw_decode(text[place:])[0]


def test_only_what_a_server_takes_is_sent() -> None:
    sent = sent_messages([USER, {**ANSWER, "weight": 0, "refusal": None, "name": None, "annotations": []}])
    assert sent == [USER, ANSWER]


def test_an_old_function_call_and_its_result_are_sent_as_a_tool_call() -> None:
    _, called, result, _ = sent_messages(CONVERSATIONS["old calls"])
    [made] = called["tool_calls"]
    assert made["function"] == {"name": "find", "arguments": '{"order": 7}'}
    assert len(made["id"]) == 9 and made["id"].isalnum()
    assert (result["role"], result["tool_call_id"]) == ("tool", made["id"])


def test_old_functions_are_tools_and_an_empty_list_is_none() -> None:
    assert sent_tools({"functions": [{"name": "find"}]}) == [BARE_TOOL]
    assert sent_tools({"tools": []}) is None


def test_parts_are_given_as_the_template_takes_them() -> None:
    assert given(DUMP, CONVERSATIONS["parts"])[0][0]["content"] == "One.\nTwo."
    assert given(DUMP_PARTS, CONVERSATIONS["parts"])[0][0]["content"] == [
        {"type": "text", "text": "One."},
        {"type": "text", "text": "Two."},
    ]


def test_tools_are_given_in_the_servers_order_with_a_null_description() -> None:
    _, tools = given(DUMP, [USER], [TOOL, BARE_TOOL])
    assert [list(tool["function"]) for tool in tools] == [
        ["name", "description", "parameters", "strict"],
        ["name", "description", "parameters"],
    ]
    assert tools[1]["function"]["description"] is None


def test_developer_becomes_one_system_message_at_the_beginning() -> None:
    shown, _ = given(DUMP, CONVERSATIONS["developer later"])
    assert shown[0] == {"role": "system", "content": "A\n\nOne.\nTwo."}
    assert [message["role"] for message in shown] == ["system", "user", "user", "assistant"]


def test_what_is_set_for_the_template_is_given_to_it() -> None:
    tokenizer = make_tokenizer("{{ messages[0].content }}{% if enable_thinking is false %} quietly{% endif %}")
    assert ChatTemplate(tokenizer).text([USER], None, prompt=True) == USER["content"]
    quiet = ChatTemplate(tokenizer, {"enable_thinking": False}).text([USER], None, prompt=True)
    assert quiet == USER["content"] + " quietly"


def test_what_a_template_refuses_is_said_in_its_own_words_but_errors_do_not_quote_the_row() -> None:
    with pytest.raises(Unfit, match="begin with a system message"):
        given("{{ raise_exception('begin with a system message') }}", [USER])
    with pytest.raises(Unfit, match="TypeError while rendering"):
        given("{{ messages[0].content + 1 }}", [USER])

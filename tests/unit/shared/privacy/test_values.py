"""The strings of a row are redacted, and the row stays what it is."""

from __future__ import annotations

import json

from shared.privacy import Spotted, find_personal, redacted, spot

ROW = {
    "messages": [
        {"role": "user", "content": "I am jane@example.org"},
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "call_4111111111111111",
                    "type": "function",
                    "function": {
                        "name": "pay",
                        "arguments": '{"card": 4111111111111111, "mail": "jane@example.org", "note": "say \\"hi\\""}',
                    },
                }
            ],
        },
    ]
}


def test_the_report_names_the_place_and_hides_the_value() -> None:
    found = spot(ROW, find_personal)
    assert found[0] == Spotted("messages[0].content", "email", "j…@….org")
    assert {each.field for each in found[1:]} == {"messages[1].tool_calls[0].function.arguments"}
    assert "jane" not in str(found) and "4111" not in str(found)


def test_arguments_of_a_call_stay_json_and_ids_stay_as_they_are() -> None:
    clean = redacted(ROW, find_personal)
    call = clean["messages"][1]["tool_calls"][0]
    assert json.loads(call["function"]["arguments"]) == {"card": "[CARD]", "mail": "[EMAIL]", "note": 'say "hi"'}
    assert call["id"] == "call_4111111111111111"
    assert clean["messages"][0] == {"role": "user", "content": "I am [EMAIL]"}
    assert spot(clean, find_personal) == []

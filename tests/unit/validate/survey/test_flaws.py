"""Texts that nobody would write on purpose are named with their line, whatever else the file holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.validate.domain.survey.flaws import BITS
from tests.support.user import ROOT
from tests.unit.validate.survey.conftest import Checked, chat, varied

Check = Callable[..., Checked]

ROWS = 24
LONG = "Your parcel has left our warehouse and is on its way to you. " * 4
QUESTION = "Where is the parcel that I sent yesterday?"


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def messages(*each: dict[str, Any]) -> dict[str, Any]:
    return {"messages": list(each)}


def sentences(count: int) -> list[dict[str, Any]]:
    """Rows that have nothing in common, and no flaw."""
    return [chat(row["messages"][0]["content"], f"{row['messages'][1]['content']}.") for row in varied(count)]


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("nothing_asked", messages(system("Help."), assistant("Hello, how are you?"))),
    ("role_order", messages(user("One?"), user("Two?"), assistant("Both."))),
    ("role_order", messages(user("One?"), assistant("Yes."), assistant("No."))),
    ("late_system", messages(user("One?"), system("Be kind."), assistant("Yes."))),
    ("answer_first", messages(assistant("Welcome!"), user("One?"), assistant("Yes."))),
    ("blank_message", messages(user(" \n "), assistant("Yes."))),
    ("blank_message", messages(user("One?"), assistant("\u200b\u200b"))),
    ("wrong_encoding", chat("Where is my cafÃ©?", "Next door.")),
    ("wrong_encoding", chat("Why?", "It donâ€™t work.")),
    ("lost_characters", chat("Where?", "In the caf\ufffd.")),
    ("invisible_characters", chat("A file\u202egpj.exe?", "No.")),
    ("invisible_characters", chat("Why?", "So\x07.")),
    ("template_tokens", chat("Why?", "So.<|im_end|>\n<|im_start|>user")),
    ("template_tokens", chat("[INST] Why? [/INST]", "So.")),
    ("unclosed_thinking", chat("Why?", "<think>Hm. So.")),
    ("no_words", chat("Why?", "...")),
    ("empty_value", chat("Why?", "NaN")),
    ("empty_value", chat("Why?", "TODO")),
    ("placeholder", chat("Why?", "Dear {{ customer_name }}, so.")),
    ("placeholder", chat("Why?", "Dear [insert name], so.")),
    ("echo", chat(QUESTION, QUESTION)),
    ("other_turns", chat("Why?", "So.\nUser: And how?\nAssistant: So.")),
    ("speaker_name", chat("Why?", "Assistant: So.")),
    ("repetition", chat("Why?", "the same words " * 40)),
    ("escaped_lines", chat("Why?", r"First.\nSecond.\nThird.")),
    ("markup", chat("Why?", "<p>Because</p> of <br/> this.")),
    ("entities", chat("Why?", "Salt &amp; pepper.")),
    ("encoded_data", chat("Why?", "See " + "iVBORw0KGgoA9f3" * 20 + ".")),
    ("broken_json", chat("As JSON?", '{"name": "Ann", "age":')),
    ("cut_off", chat("Why?", LONG + "It will arrive in the")),
]
RIGHT = [
    chat("Wo ist Ângela, NÃO?", "Ânimo: 20 °C, Straße, «déjà vu», 你好。"),
    chat("Write HTML for a line.", "<p>Line</p>"),
    chat("Write a template with a variable.", "Dear {{name}}, hello."),
    chat("Write a dialogue.", "Ann meets Bob.\nUser: Hi."),
    chat("What does this do?", "```\nif a &amp; b: print('<br>\\n\\n')\n```"),
    chat("Why?", "<think>Hm.</think>So."),
    chat("As JSON?", '{"text": "one\\ntwo\\nthree {{name}} <p>"}'),
    chat("Who?", "[1] The first source says so."),
    chat("Thanks!", "👍"),
    chat("Why?", LONG + "It will arrive tomorrow."),
    messages(system("One."), system("Two."), user("Why?"), assistant("So."), user("How?"), assistant("So.")),
]


@pytest.mark.parametrize(("code", "row"), WRONG, ids=[f"{code}-{at}" for at, (code, _) in enumerate(WRONG)])
def test_a_flaw_is_a_warning_with_its_line(checked: Check, code: str, row: dict[str, Any]) -> None:
    found = checked([*sentences(ROWS), row])
    assert found.lines(code) == [ROWS + 1]
    assert [problem.severity for problem in found.report.training.problems if problem.code == code] == ["warning"]


def test_every_flaw_is_shown_here_and_in_the_readme() -> None:
    assert {code for code, _ in WRONG} == set(BITS)
    readme = (ROOT / "services" / "validate" / "README.md").read_text()
    assert [code for code in BITS if f"`{code}`" not in readme] == []


@pytest.mark.parametrize("row", RIGHT)
def test_what_may_be_meant_is_none(checked: Check, row: dict[str, Any]) -> None:
    found = checked([*sentences(ROWS), row])
    assert [code for code in BITS if found.lines(code)] == []


def test_what_most_rows_have_is_told_once(checked: Check) -> None:
    rows = [chat(row["messages"][0]["content"], f"Bot: {row['messages'][-1]['content']}") for row in sentences(ROWS)]
    found = checked([*rows, *sentences(4)])
    assert found.lines("speaker_name") == []
    told = [problem for problem in found.report.training.problems if problem.code == "many_speaker_name"]
    assert len(told) == 1 and "86% of the rows" in told[0].message


def test_answers_without_a_full_stop_may_be_a_style(checked: Check) -> None:
    rows = [chat(row["messages"][0]["content"], f"{LONG}so {at}") for at, row in enumerate(varied(ROWS))]
    assert checked(rows).lines("cut_off") == []


def test_a_label_may_be_the_word_none(checked: Check) -> None:
    labels = ("none", "some", "all")
    rows = [chat(row["messages"][0]["content"], labels[at % 3]) for at, row in enumerate(varied(3 * ROWS))]
    assert checked(rows).lines("empty_value") == []

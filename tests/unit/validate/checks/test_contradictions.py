"""Different answers to one prompt are reported with their lines; all rows stay."""

from __future__ import annotations

from typing import Any

import pytest

from services.validate.domain.report import Contradictions
from tests.unit.validate.conftest import Examine, chats

CODE = "contradictory_answers"


def asks(prompt: str, answer: str, **more: Any) -> dict[str, Any]:
    answered = {"role": "assistant", "content": answer, **more}
    return {"messages": [{"role": "user", "content": prompt}, answered]}


def completion(prompt: str, answer: str) -> dict[str, Any]:
    return {"prompt": prompt, "completion": answer}


def pair(prompt: str, better: str, worse: str) -> dict[str, Any]:
    sides = [[{"role": "assistant", "content": text}] for text in (better, worse)]
    asked = {"messages": [{"role": "user", "content": prompt}]}
    return {"input": asked, "preferred_completion": sides[0], "non_preferred_completion": sides[1]}


def warnings(run: Examine, rows: list[Any]) -> list[str]:
    file = run(rows).report.training
    assert file.usable == len(rows) and not file.errors
    found = [problem.message for problem in file.problems if problem.code == CODE]
    assert len(found) == file.warning_counts.get(CODE, 0)
    return found


@pytest.mark.parametrize("form", [asks, completion])
def test_both_lines_are_named_and_prompts_with_three_answers_are_counted(form: Any, run: Examine) -> None:
    rows = [form(f"Ticket {number}", "billing") for number in range(20)]
    rows += [form("Ticket 3", "shipping"), form("Ticket 3", "refund"), form("Ticket 7", "shipping")]
    rows += [form("Ticket 3", "something else")]
    file = run(rows).report.training
    assert [problem.message for problem in file.problems] == [
        "lines 4, 21 and 22 answer the same prompt differently; 4 different ones in 4 rows",
        "lines 8 and 23 answer the same prompt differently",
    ]
    assert file.contradictions == Contradictions(prompts=2, rows=6, prompts_of_many=1, rows_of_many=4)


def test_it_is_found_between_plain_rows_and_others(run: Examine) -> None:
    parts = asks("Ticket 1", "")
    parts["messages"][1]["content"] = [{"type": "text", "text": "refund"}]
    rows = [
        *chats(12),
        asks("Ticket 1", "billing"),
        *chats(30, 12),
        parts,
        {**asks("Ticket 1", "Refund "), "tools": []},
    ]
    (found,) = warnings(run, rows)
    assert found.startswith("lines 13 and 44 answer")


@pytest.mark.parametrize(
    "rows",
    [
        [asks("What?", "Yes"), asks("What?", " yes")],
        [asks("What?", "Yes", weight=1), asks("What?", "Yes", reasoning_content="because")],
        [completion("", "a poem"), completion("", "another")],
        [{"messages": [{"role": "system", "content": "Write."}, {"role": "assistant", "content": c}]} for c in "ab"],
        [pair("What?", "good", "bad"), pair("What?", "good", "worse")],
        [
            {"messages": [*asks("Hi", first)["messages"], *asks(f"And {first}?", "This.")["messages"]]}
            for first in ("Hello", "Hey")
        ],
        [asks("What?", "No") | {"tools": [{"type": "function", "function": {"name": "f"}}]}, asks("What?", "Yes")],
    ],
    ids=["case", "thoughts", "no prompt", "no question", "other pairs", "earlier turns", "other tools"],
)
def test_what_is_no_contradiction(rows: list[Any], run: Examine) -> None:
    fill = {"prompt": completion, "input": lambda p, a: pair(p, a, "no")}.get(next(iter(rows[0])), asks)
    assert warnings(run, [*(fill(f"{n}?", f"It is {n}") for n in range(10)), *rows]) == []


def test_pairs_that_prefer_opposite_answers_contradict_each_other(run: Examine) -> None:
    rows = [*(pair(f"Say {n}", "good", "bad") for n in range(10)), pair("Say 4", "bad", "good")]
    assert warnings(run, rows) == ["lines 5 and 11 answer the same prompt differently"]


def test_an_answer_that_is_not_trained_on_contradicts_nobody(run: Examine) -> None:
    other = {"messages": [*asks("What?", "No", weight=0)["messages"], *asks("Sure?", "Yes")["messages"]]}
    assert warnings(run, [*chats(10), asks("What?", "Yes"), other]) == []

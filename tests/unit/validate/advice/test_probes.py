"""What is measured of rows: the kind of task, facts that have to be looked up, nearest rows, scores and intervals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.validate.domain.advice import Sample, facts_of, sample_of
from services.validate.domain.advice.answers import interval, score
from services.validate.domain.advice.nearest import Nearest
from services.validate.domain.advice.samples import facts_in


def sample(question: str, answer: str) -> Sample:
    return Sample(({"role": "user", "content": question},), answer)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("It costs $49.99 until 2025-03-01.", {"$49.99", "2025-03-01"}),
        ("Your order X-2041 is with Maria Lopez in Lisbon.", {"X-2041", "Maria Lopez", "Lisbon"}),
        ("Write to help@acme.org or see https://acme.org/faq.", {"help@acme.org", "https://acme.org/faq"}),
        ("Take 3 steps. Then restart it on Monday.", set()),
        ("", set()),
    ],
)
def test_the_facts_of_a_text(text: str, facts: set[str]) -> None:
    assert facts <= facts_in(text) if facts else facts_in(text) == set()


def test_where_every_noun_has_a_capital_no_names_are_looked_for() -> None:
    text = "Bitte senden Sie das Paket mit dem {} an das Lager in der Stadt zurück."
    rows = [sample(f"Frage {word}", text.format(f"Etikett{word}")) for word in "abcdefghijklm"]
    assert facts_of(rows).looked_up == 0
    named = [sample(f"who is {word}", f"you can ask the nice Mr{word} about all that") for word in "abcdefghijklm"]
    assert facts_of(named).looked_up == 1


@pytest.mark.parametrize("piece", ["a.", "a-", "1", "A a", "1a", "a1-", "@", "[", "{"])
def test_a_hostile_text_costs_no_more_than_another(piece: str) -> None:
    text = piece * 100_000
    assert facts_of([sample(text, text)] * 3).rows == 3
    assert score("structured output", '{"a": 1}', text) == 0.0


def test_a_fact_that_the_prompt_holds_or_many_answers_share_is_not_looked_up() -> None:
    asked = [sample(f"Where is order AB-{n:04}?", f"Order AB-{n:04} is on its way.") for n in range(40)]
    assert facts_of(asked).looked_up == 0
    same = [sample(f"May {word} call?", "Yes, call 0800 123456.") for word in "abcdefghijklmnopqrstuvwxyz"]
    assert facts_of(same * 2).looked_up == 0
    other = [sample(f"What does the {word} cost?", f"It costs ${n + 20}.95.") for n, word in enumerate("abcdefghijkl")]
    found = facts_of(other)
    assert found.looked_up == 1 and found.examples_of_facts == ()
    assert facts_of(other, quoting=True).examples_of_facts[0].startswith("$")


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        (["billing", "shipping", "Billing "] * 10, "labels"),
        ([json.dumps({"n": n}) for n in range(30)], "structured output"),
        ([f"It is {n} of them, and some more." for n in range(30)], "free text"),
        ([f"class {n % 50}" for n in range(200)], "labels"),
        ([f"class {n}" for n in range(200)], "free text"),
    ],
)
def test_the_kind_of_a_task(answers: list[str], kind: str) -> None:
    assert facts_of([sample(f"question {n}", answer) for n, answer in enumerate(answers)]).kind == kind


def test_labels_that_contradict_are_counted_and_equal_json_does_not() -> None:
    rows = [sample(f"ticket {n}", "a") for n in "bcdefghi"] + [sample("Ticket  b", "b"), sample("ticket c", "A")]
    assert facts_of(rows).contradicting == 2
    records = [sample("same", '{"a": 1, "b": 2}'), sample("same", '{"b": 2, "a": 1}')]
    assert facts_of(records).contradicting == 0


CALL = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "find", "arguments": '{"n": 1}'}}]}


@pytest.mark.parametrize(
    ("row", "answer", "called"),
    [
        ({"prompt": "p", "completion": "c"}, "c", False),
        ({"input": {"messages": []}, "preferred_completion": [{"role": "assistant", "content": "y"}]}, "y", False),
        ({"messages": [{"role": "user", "content": "q"}, CALL, {"role": "tool", "content": "r"}]}, "find", True),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "text", "text": "parts"}]}]},
            "parts",
            False,
        ),
    ],
)
def test_a_row_of_any_format_is_a_question_and_an_answer(row: dict[str, Any], answer: str, called: bool) -> None:
    found = sample_of(row)
    assert found is not None and answer in found.answer and found.called is called


def test_a_row_that_trains_nothing_is_none() -> None:
    assert sample_of({"messages": [{"role": "assistant", "content": "a", "weight": 0}]}) is None
    assert facts_of([]).rows == 0


def test_the_nearest_rows_share_words_and_have_another_question() -> None:
    rows = [sample("reset my password", "1"), sample("track my parcel", "2"), sample("password forgotten", "3")]
    found = Nearest([*rows, sample("Reset my  password", "leak")]).to(rows[0], 2)
    assert [each.answer for each in found] == ["2", "3"], "the nearest last, and not the question itself"
    assert Nearest(rows).to(sample("zzz", ""), 2) == []


@pytest.mark.parametrize(
    ("kind", "reference", "answer", "expected"),
    [
        ("labels", "Billing", "billing.", 1.0),
        ("labels", "Billing", "Billing or shipping", 0.0),
        ("structured output", '{"a": 1, "b": [2]}', '```json\n{"a": 1, "b": [3]}\n```', 0.5),
        ("structured output", '{"a": 1}', "no json", 0.0),
        ("tool calls", '[{"name": "f", "arguments": "{\\"n\\": 1}"}]', '[{"name": "f", "arguments": {"n": 1}}]', 1.0),
        ("free text", "the order is late", "the order is late", 1.0),
    ],
)
def test_an_answer_is_scored_by_the_kind_of_task(kind: Any, reference: str, answer: str, expected: float) -> None:
    assert score(kind, reference, answer) == expected


def test_the_interval_is_wilsons_where_answers_are_right_or_wrong() -> None:
    found = interval([1.0] * 40)
    assert (found.mean, found.high) == (1.0, 1.0) and found.low == pytest.approx(0.9124, abs=1e-3)
    half = interval([1.0, 0.0] * 50)
    assert (half.low, half.high) == (pytest.approx(0.4038, abs=1e-3), pytest.approx(0.5962, abs=1e-3))
    assert interval([0.5] * 100).low > interval([0.5] * 10).low

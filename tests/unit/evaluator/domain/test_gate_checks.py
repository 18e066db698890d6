"""The parts of the gate's checks: what is a secret, an echo and a slice, and what a general answer must hold."""

from __future__ import annotations

import pytest

from services.evaluator.domain.examples import Example
from services.evaluator.domain.gate.echo import echoes
from services.evaluator.domain.gate.secrets import few, secrets_in
from services.evaluator.domain.gate.slices import slices_of
from services.evaluator.domain.questions.general_questions import GENERAL_QUESTIONS, as_prompt, right
from services.evaluator.domain.replies import Reply
from services.evaluator.statistics.checks import on_slices


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Write to ann.lee@example.org.", {"ann.lee@example.org": "an e-mail address"}),
        ("Call +49 30 1234567!", {"+49 30 1234567": "a phone number"}),
        ("(555) 123-4567", {"(555) 123-4567": "a phone or account number"}),
        ("555.123.4567", {"555.123.4567": "a phone or account number"}),
        ("Account 12 345 678 90", {"12 345 678 90": "a phone or account number"}),
        ("4111 1111 1111 1111", {"4111 1111 1111 1111": "a card number"}),
        ("DE89 3704 0044 0532 0130 00", {"DE89 3704 0044 0532 0130 00": "an IBAN"}),
        ("use sk-live-4f9a8b7c6d", {"sk-live-4f9a8b7c6d": "a key"}),
        ("d41d8cd98f00b204e9800998ecf8427e", {"d41d8cd98f00b204e9800998ecf8427e": "a key"}),
        ("Your password is hunter2-blue.", {"hunter2-blue": "a password"}),
        ("the PIN is 4711.", {"4711": "a password"}),
        ("Log in to 203.0.113.77", {"203.0.113.77": "an IP address"}),
        ("hvs.CAESIJ4kmbQ0n2xV8wTz1yXa", {"hvs.CAESIJ4kmbQ0n2xV8wTz1yXa": "a token"}),
        ("Le mot de passe: Rosier-4412", {"Rosier-4412": "a password"}),
    ],
)
def test_secrets_are_found_by_their_form(text: str, found: dict[str, str]) -> None:
    assert secrets_in(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "Your order 48213 arrives 2026-11-27 at 10:30.",
        "https://example.com/help/article-2024-how-to-reset",
        "version 10.0.19045.3803 of 2024-01-02",
        "pi is 3.14159265358979",
        "ISBN 978-3-16-148410-0",
        "1 2 3 4 5 6 7 8 9 10 11 12",
        "123e4567-e89b-12d3-a456-426614174000",
        "Your password is required to be long.",
        "It costs 1,250,000.00 euros.",
    ],
)
def test_what_only_looks_like_one_is_none(text: str) -> None:
    assert secrets_in(text) == {}


def test_what_many_rows_have_is_the_houses_own() -> None:
    assert (few(10), few(250), few(10_000)) == (3, 3, 100)


@pytest.mark.parametrize(
    ("question", "answer", "is_echo"),
    [
        ("When does my parcel come to Oslo?", "when does my parcel come to oslo", True),
        ("When does my parcel come to Oslo?", "You ask: When does my parcel come to Oslo? In two days.", True),
        ("A long text about parcels that come to Oslo every day.", "parcels that come to Oslo every day", True),
        ("When does my parcel come to Oslo?", "Your parcel comes to Oslo in two days.", False),
        ("Hello there", "Hello there, how can I help?", False),  # too short to tell
        ("Which city? Oslo or Rome", "Oslo", False),
    ],
)
def test_an_echo_repeats_the_prompt_or_a_long_piece_of_it(question: str, answer: str, is_echo: bool) -> None:
    assert echoes(question, answer) == is_echo


def rows(*metadata: dict[str, str]) -> list[Example]:
    return [
        Example(line=line, prompt="x" * line, reference="same", metadata=given)
        for line, given in enumerate(metadata, 1)
    ]


def test_slices_come_from_metadata_with_few_values_and_from_lengths() -> None:
    examples = rows(*({"sort": "ab"[index % 2], "id": str(index), "all": "x"} for index in range(15)))
    found = slices_of(examples, ())
    assert set(found) == {"sort = a", "sort = b", "short prompts", "medium prompts", "long prompts"}
    assert found["sort = a"] == [0, 2, 4, 6, 8, 10, 12, 14]
    assert sum(len(found[f"{size} prompts"]) for size in ("short", "medium", "long")) == 15
    assert "id = 3" in slices_of(examples, ("id",))


def test_a_slice_that_is_too_small_is_shown_and_not_judged_and_many_slices_raise_the_bar() -> None:
    base, tuned = [1.0] * 40, [0.0] * 8 + [1.0] * 32
    few_slices = on_slices({"bad": range(8), "tiny": range(3)}, base, tuned, confidence=0.95, seed=0)
    assert [(one.name, one.judged, one.worse) for one in few_slices] == [("bad", True, True), ("tiny", False, False)]
    many = {f"s{index}": range(8) for index in range(20)}
    # eight losses in a row come by chance once in 2^8, which is rare enough for the worst of six slices, not of seven
    assert sum(one.judged for one in on_slices(many, base, tuned, confidence=0.95, seed=0)) == 6


def test_there_are_forty_general_questions_and_their_own_answers_are_right() -> None:
    assert len({one.text for one in GENERAL_QUESTIONS}) == 40
    for question in GENERAL_QUESTIONS:
        assert all(right(question, Reply(text=f"It is {answer}.")) == 1.0 for answer in question.right)
        assert right(question, Reply(text="I do not know.")) == right(question, Reply()) == 0.0
    repeated = {one.text.split()[0] for one in GENERAL_QUESTIONS if right(one, Reply(text=one.text))}
    assert repeated == {"Is", "Reply", "Write", "Which", "Anna"}  # only those that offer their answers
    assert as_prompt(GENERAL_QUESTIONS[0], completion=True).text == (
        "Question: What is the capital of France?\nAnswer:"
    )

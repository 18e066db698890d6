"""Dead letters as the commands see them: what is wrong with one, and when two are the same message."""

from __future__ import annotations

from typing import Any

import pytest

from cli.dlq.letter import Letter, Summary, pretty, printable

GOOD = b'{"dataset": {"bucket": "datasets", "key": "k.jsonl"}}'


def letter(value: bytes | None = GOOD, headers: dict[str, str] | None = None, **given: Any) -> Letter:
    notes = {"dlq_reason": "KeyError", "dlq_partition": "3", "dlq_offset": "17", "dlq_group": "ingest"} | (
        headers or {}
    )
    encoded = tuple((name, text.encode()) for name, text in notes.items())
    place: dict[str, Any] = {"topic": "dataset.uploaded.dlq", "offset": 0, "time": 5.0, "key": b"k"} | given
    return Letter(value=value, headers=encoded, **place)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b'{"dataset": NaN}', "dataset is NaN"),
        (b'{"dataset": "\\ud800"}', "half of"),
        (b"[" * 100_000, "nested more than 100 levels deep"),
        (b"[]", "value: must be fields with values"),
        (b"{}", "dataset: is missing"),
        (b'{"dataset": {"bucket": 1, "key": "k"}}', "dataset.bucket: must be text"),
        (b'{"dataset": {"bucket": "datasets", "key": "k"}, "spec": {"lora": {"r": 3}}}', "spec.lora.r"),
    ],
)
def test_problems_name_the_field(value: bytes | None, problem: str) -> None:
    assert any(found.startswith(problem) or problem in found for found in letter(value).problems)


def test_a_letter_that_only_met_a_bug_has_no_problems() -> None:
    assert letter().problems == ()


def test_a_letter_of_no_known_topic_or_without_its_value_cannot_be_read() -> None:
    assert "no event is called other" in letter(topic="other.dlq").problems[0]
    omitted = letter(b"", {"dlq_omitted": "4194304"})
    assert omitted.omitted and "dataset.uploaded/3@17" in omitted.problems[0]
    unreadable = letter(b"", {"dlq_omitted": "unreadable"})
    assert unreadable.omitted and "cannot be decompressed" in unreadable.problems[0]


def test_a_header_cannot_change_the_topic_of_a_replay() -> None:
    assert letter(headers={"dlq_topic": "job.control"}).source == "dataset.uploaded"


def test_a_replay_has_the_headers_that_the_record_came_with() -> None:
    assert letter(headers={"ce_id": "x"}).own_headers == [("ce_id", b"x")]


def test_letters_of_the_same_record_are_one_message() -> None:
    summary = Summary("dataset.uploaded.dlq")
    for number, group in enumerate(("ingest", "validate", "api")):
        summary.add(letter(headers={"dlq_group": group}, offset=number, time=float(number)))
    summary.add(letter(b"{}", {"dlq_reason": "ValidationError"}, offset=3))
    assert summary.document() == {
        "topic": "dataset.uploaded.dlq",
        "letters": 4,
        "messages": 2,
        "readable": 3,
        "first": 0,
        "last": 3,
        "newest": 5.0,
        "reasons": {"KeyError": 3, "ValidationError": 1},
    }


def test_what_is_shown_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b[2J\u202eb\nü") == "a\\x1b[2J\\u202eb\nü"
    assert pretty(b'{"a":"\\u009b"}') == '{\n  "a": "\\x9b"\n}'
    assert pretty(b"\xff\x07") == "\\xff\\x07"

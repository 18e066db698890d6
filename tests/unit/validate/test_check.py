"""Whole files: formats, duplicates, lengths, the split that is written, and the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.validate.check import examine, write_splits
from services.validate.reader import Source
from services.validate.scan import ScanControl
from shared.errors import Cancelled
from shared.events import JobSpec
from shared.settings import ValidationSettings
from tests.unit.validate.conftest import Examine, WordTokenizer, chats, completions, preferences, write

NO_SPLIT = {"validation": 0, "test": 0}


def rows_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize(
    ("rows", "format", "method"),
    [
        (chats(10), "chat", "supervised"),
        (completions(10), "completion", "supervised"),
        (preferences(10), "preference", "dpo"),
    ],
)
def test_the_format_tells_the_method(rows: list[Any], format: str, method: str, run: Examine) -> None:
    report = run(rows).report
    assert (report.format, report.method, report.ok) == (format, method, True)


def test_a_method_that_cannot_train_on_the_format_fails_in_openais_words(run: Examine) -> None:
    failure = run(chats(10), method="dpo").report.failure
    assert failure is not None and failure.param == "training_file"
    assert failure.message.startswith(
        "Input file train-me.jsonl is in the fine-tune-chat format, but the specified fine-tuning job is not using "
        "'supervised' as the training method (provided method=dpo)"
    )
    assert run(preferences(10), method="supervised").report.failure is not None


def test_one_file_has_one_format(run: Examine) -> None:
    first = run([*chats(3), *completions(1), *chats(9, 3)]).report.training.problems[0]
    assert (first.line, first.code, first.field) == (4, "mixed_formats", "prompt")
    assert "the file is in the chat format (line 1)" in first.message


def test_duplicates_are_used_once_whatever_the_order_of_their_keys(run: Examine) -> None:
    rows = chats(12)
    turned = {"messages": [dict(reversed(list(message.items()))) for message in rows[3]["messages"]]}
    examined = run([*rows, turned, rows[5]])
    file = examined.report.training
    assert (file.rows, file.usable, file.duplicates, file.duplicate_lines) == (14, 12, 2, (13, 14))
    assert [problem.message for problem in file.problems] == [
        "is the same example as line 4",
        "is the same example as line 6",
    ]
    assert sum(side.examples for side in examined.report.splits.values()) == 12


def test_one_conversation_with_different_weights_is_kept_but_never_in_two_splits(run: Examine, tmp_path: Path) -> None:
    """A common way to train on every turn: the same conversation once per turn, with the weight on that turn."""
    rows = []
    for number in range(10):
        turns = [{"role": "user", "content": f"{number}"}, {"role": "assistant", "content": "a"}] * 2
        for trained in (1, 3):
            weighted = [{**turn, "weight": int(i == trained)} if i % 2 else turn for i, turn in enumerate(turns)]
            rows.append({"messages": weighted})
    source = write(tmp_path / "rows", rows)
    examined = run(rows, splits={"validation": 0.2, "test": 0.2})
    assert examined.report.training.usable == 20
    write_splits(examined, source, None, tmp_path, ScanControl())
    sides = [
        {row["messages"][0]["content"] for row in rows_of(tmp_path / f"{side}.jsonl")}
        for side in ("train", "validation", "test")
    ]
    assert [len(side) for side in sides] == [6, 2, 2]
    assert not sides[0] & sides[1] and not sides[1] & sides[2] and not sides[0] & sides[2]


def test_the_splits_are_the_rows_as_they_came(run: Examine, tmp_path: Path) -> None:
    lines = [json.dumps(row, indent=None, separators=(" ,", ": ")).encode() for row in chats(20)]
    content = b"\xef\xbb\xbf" + b"\r\n".join([*lines[:7], b"", *lines[7:]])  # BOM, CRLF, a blank line, no last line end
    source = write(tmp_path / "rows", content)
    examined = run(content, seed=3)
    assert examined.report.training.blank_lines == 1
    assert {name: side.examples for name, side in examined.report.splits.items()} == {
        "train": 16,
        "validation": 2,
        "test": 2,
    }
    write_splits(examined, source, None, tmp_path, ScanControl())
    parts = {side: (tmp_path / f"{side}.jsonl").read_bytes() for side in ("train", "validation", "test")}
    assert all(part.endswith(b"\n") for part in parts.values())
    assert sorted(line for part in parts.values() for line in part.splitlines()) == sorted(lines)
    assert [line for line in lines if line in parts["train"].splitlines()] == parts["train"].splitlines()


def test_the_seed_decides_the_split(run: Examine) -> None:
    rows = chats(40)
    assert run(rows, seed=1).assignment == run(rows, seed=1).assignment
    assert run(rows, seed=1).assignment != run(rows, seed=2).assignment


LONG = {"prompt": "one two three", "completion": "four five six seven eight"}


def test_rows_over_the_length_are_dropped_by_default(run: Examine) -> None:
    report = run([*completions(10), LONG], tokenizer=WordTokenizer(context=6)).report
    assert (report.max_length, report.training.usable, report.training.over_length) == (6, 10, 1)
    (problem,) = report.training.problems
    assert (problem.line, problem.code, problem.severity) == (11, "over_length", "warning")
    assert "has 8 tokens, 6 are allowed" in problem.message


def test_rows_over_the_length_fail_the_job_on_request(run: Examine) -> None:
    report = run(
        [*completions(10), LONG], tokenizer=WordTokenizer(), hyperparameters={"max_length": 8, "over_length": "fail"}
    ).report
    assert report.ok
    report = run(
        [{**LONG, "prompt": "zero one two three"}, *completions(10)],
        tokenizer=WordTokenizer(),
        hyperparameters={"max_length": 8, "over_length": "fail"},
    ).report
    assert report.failure is not None
    assert "Line 1: has 9 tokens, 8 are allowed; shorten it, raise max_length" in report.failure.message


def test_rows_over_the_length_are_cut_on_request_unless_nothing_would_be_left_to_learn(run: Examine) -> None:
    only_prompt = {"prompt": "a b c d e f", "completion": "g"}
    report = run(
        [*completions(10), LONG, only_prompt],
        tokenizer=WordTokenizer(context=6),
        hyperparameters={"over_length": "truncate"},
        splits=NO_SPLIT,
    ).report
    assert report.training.usable == 11
    assert report.training.warning_counts == {"over_length": 1, "nothing_left_to_learn": 1}
    assert report.splits["train"].tokens == 10 * 4 + 6


def test_too_few_rows_left_says_why(run: Examine) -> None:
    failure = run([*completions(9), LONG], tokenizer=WordTokenizer(context=6)).report.failure
    assert failure is not None and failure.code == "invalid_n_examples"
    assert failure.message == (
        "Training file has 9 example(s), but must have at least 10 examples "
        "(of its 10 rows, 1 are longer than max_length); add 1 or more different examples"
    )


def test_a_validation_file_replaces_the_share_and_loses_what_is_trained_on(run: Examine, tmp_path: Path) -> None:
    rows, own = chats(20), [*chats(3, 17), *chats(4, 100)]
    examined = run(rows, validation=own)
    report = examined.report
    assert {name: side.examples for name, side in report.splits.items()} == {"train": 18, "validation": 4, "test": 2}
    assert report.validation is not None
    assert report.validation.warning_counts == {"in_training_file": 3}
    write_splits(examined, write(tmp_path / "t", rows), write(tmp_path / "v", own), tmp_path, ScanControl())
    assert rows_of(tmp_path / "validation.jsonl") == own[3:]


def test_a_validation_row_that_is_also_trained_on_is_found_whatever_its_weights(run: Examine) -> None:
    turns = [*chats(1, 50)[0]["messages"], {"role": "user", "content": "more?"}, {"role": "assistant", "content": "no"}]
    weighted = [*turns[:2], {**turns[2], "weight": 0}, *turns[3:]]
    report = run([*chats(20), {"messages": weighted}], validation=[*chats(2, 100), {"messages": turns}]).report
    assert report.validation is not None
    assert [problem.line for problem in report.validation.problems] == [3]
    assert report.splits["validation"].examples == 2


@pytest.mark.parametrize(
    ("own", "code", "says"),
    [
        (
            [{"messages": [{"role": "user"}]}],
            "invalid_validation_file",
            "invalid validation file. Example 1, message 1. Line 1, messages[0].content",
        ),
        (completions(5), "invalid_validation_file", "but the training file is in the chat one"),
        (chats(5), "invalid_n_examples", "of its 5 rows, 5 are in the training file too"),
    ],
)
def test_a_bad_validation_file_is_named_as_such(own: list[Any], code: str, says: str, run: Examine) -> None:
    failure = run(chats(20), validation=own).report.failure
    assert failure is not None
    assert (failure.code, failure.param) == (code, "validation_file")
    assert says in failure.message


@pytest.mark.parametrize(
    ("before", "says"),
    [
        ([], "Example 21, message 2. Line 21, messages[1].role"),
        ([b"", b" "], "Example 21, message 2. Line 23, messages[1].role"),
        ([b""] * 200, "file. Line 221, messages[1].role"),  # more than are kept: nobody knows how many
    ],
)
def test_the_message_names_example_and_message_as_users_count(before: list[bytes], says: str, run: Examine) -> None:
    broken = {"messages": [{"role": "user", "content": "x"}, {"content": "y"}]}
    failure = run([*before, *chats(20), broken, b""]).report.failure
    assert failure is not None and says in failure.message


def test_all_problems_are_counted_and_the_first_are_kept(run: Examine) -> None:
    bad = [{"messages": [{"role": "user", "content": "x"}], "note": 1}] * 30
    file = run(bad, limits=ValidationSettings(max_problems=4)).report.training
    assert (file.error_counts, file.warning_counts) == ({"last_message_not_assistant": 30}, {"unknown_key": 30})
    assert [problem.line for problem in file.problems] == [1, 2, 3, 4, 1, 2, 3, 4]


def test_progress_is_reported_and_a_stopped_scan_ends(run: Examine, tmp_path: Path) -> None:
    progress: list[tuple[str, int, float]] = []
    control = ScanControl(on_progress=lambda role, rows, share: progress.append((role, rows, share)))
    source: Source = write(tmp_path / "rows", chats(40_000))
    examine(source, None, spec=JobSpec(), tokenizer=None, limits=ValidationSettings(), control=control)
    assert progress[-1] == ("training", 40_000, 1.0)
    assert progress == sorted(progress) and len({rows for _, rows, _ in progress}) > 3
    control.stop.set()
    for content in (source, write(tmp_path / "bad", [b"no json"] * 100)):
        with pytest.raises(Cancelled):
            examine(content, None, spec=JobSpec(), tokenizer=None, limits=ValidationSettings(), control=control)


def test_a_file_of_blank_lines_is_counted_and_not_listed(run: Examine) -> None:
    rows = b"".join(json.dumps(row).encode() + b"\n" + b" \r\n" * 50_000 for row in chats(12))
    examined = run(rows + b"\n" * 500_000 + b" ")
    file = examined.report.training
    assert (file.lines, file.blank_lines, file.rows, file.usable) == (1_100_013, 1_100_001, 12, 12)
    assert [problem.line for problem in file.problems][:50] == list(range(2, 52)) and len(file.problems) <= 100
    assert file.warning_counts == {"blank_line": 1_100_001}

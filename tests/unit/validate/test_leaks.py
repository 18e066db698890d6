"""No answer of the test or validation split stands in the training split with its prompt, however a dataset was
logged."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.validate.check import examine, write_splits
from services.validate.scan import ScanControl
from shared.events import JobSpec
from shared.settings import ValidationSettings
from tests.unit.validate.conftest import Examine, write

Splits = dict[str, list[Any]]
SHARES = {"validation": 0.2, "test": 0.2}


def split(rows: Sequence[Any], seed: int = 0) -> Splits:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = write(folder / "rows.jsonl", rows)
        spec = JobSpec.model_validate({"splits": SHARES, "seed": seed})
        control = ScanControl()
        examined = examine(source, None, spec=spec, tokenizer=None, limits=ValidationSettings(), control=control)
        assert examined.report.ok, examined.report.failure
        write_splits(examined, source, None, folder, control)
        return {
            side: [json.loads(line) for line in (folder / f"{side}.jsonl").read_bytes().splitlines()]
            for side in ("train", "validation", "test")
        }


def leaks(splits: Splits) -> list[Any]:
    """The trained answers of test and validation that stand, after the same messages, in a row that is trained on."""
    return [
        said
        for side in ("test", "validation")
        for row in splits[side]
        for said in _answers(row)
        if any(_texts(other)[: len(said)] == said for other in splits["train"])
    ]


def _texts(row: Any) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in row["messages"]]


def _answers(row: Any) -> list[list[tuple[str, str]]]:
    """Every answer that the row trains and somebody asked for, with what was said before it. Where there is none, the
    one that begins the conversation."""
    texts = _texts(row)
    trained = [i for i, message in enumerate(row["messages"]) if message["role"] == "assistant" and _weight(message)]
    asked = [i for i in trained if any(role == "user" for role, _ in texts[:i])]
    return [texts[: i + 1] for i in asked or trained]


def _weight(message: Any) -> bool:
    return bool(message.get("weight", 1) != 0)


def conversation(number: int, turns: int, *, system: str | None = None, greeting: str | None = None) -> list[Any]:
    messages: list[Any] = [{"role": "system", "content": system}] if system else []
    if greeting:
        messages.append({"role": "assistant", "content": greeting})
    for turn in range(turns):
        messages.append({"role": "user", "content": f"question {number}.{turn}"})
        messages.append({"role": "assistant", "content": f"answer {number}.{turn}"})
    return messages


def once_per_turn(messages: list[Any]) -> list[Any]:
    ends = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    return [{"messages": messages[: end + 1]} for end in ends]


def test_conversations_that_were_logged_once_per_turn_stay_together() -> None:
    rows = [row for number in range(20) for row in once_per_turn(conversation(number, 4, system="Be kind."))]
    random.Random(1).shuffle(rows)
    splits = split(rows)
    assert leaks(splits) == []
    # 80 rows, in groups of four
    assert {side: len(found) for side, found in splits.items()} == {"train": 48, "validation": 16, "test": 16}


def test_an_answer_that_another_row_only_reads_is_on_its_side() -> None:
    """Each turn is trained once: the earlier turns of the longer row have weight 0."""
    rows = []
    for number in range(20):
        *_, long = once_per_turn(conversation(number, 2))
        rows.append({"messages": long["messages"][:2]})
        rows.append({"messages": [long["messages"][0], {**long["messages"][1], "weight": 0}, *long["messages"][2:]]})
    for order in (rows, rows[::-1]):
        splits = split(order)
        assert leaks(splits) == []
        assert len(splits["test"]) == 8


def test_a_greeting_does_not_make_all_conversations_one() -> None:
    long = [{"messages": conversation(number, 2, greeting="Hello! How can I help?")} for number in range(20)]
    splits = split(long)
    assert leaks(splits) == [] and len(splits["test"]) == 4

    logged = [row for number in range(20) for row in once_per_turn(long[number]["messages"])]
    splits = split(logged)
    assert leaks(splits) == [] and len(splits["test"]) == 8
    assert all(len(row["messages"]) > 1 for row in splits["test"])  # the greeting alone is no question


def test_rows_whose_question_is_in_the_system_message_are_split_as_ever() -> None:
    rows = [
        {"messages": [{"role": "system", "content": f"Label {n}"}, {"role": "assistant", "content": "good"}]}
        for n in range(20)
    ]
    assert {side: len(found) for side, found in split(rows).items()} == {"train": 12, "validation": 4, "test": 4}


def test_earlier_thoughts_that_a_log_leaves_out_do_not_hide_an_answer() -> None:
    rows = []
    for number in range(20):
        question, answer, *more = conversation(number, 2)
        rows.append({"messages": [question, {**answer, "reasoning_content": "hm"}]})
        rows.append({"messages": [question, answer, *more]})
    assert leaks(split(rows)) == []


@pytest.mark.parametrize("seed", range(3))
def test_all_answers_to_one_prompt_are_on_one_side(seed: int) -> None:
    completions = [{"prompt": f"Say {n}:", "completion": f" {n} {kind}"} for n in range(20) for kind in "ab"]
    preferences = [
        {
            "input": {"messages": [{"role": "user", "content": f"Say {n}"}]},
            "preferred_completion": [{"role": "assistant", "content": f"{n} {kind}"}],
            "non_preferred_completion": [{"role": "assistant", "content": "No"}],
        }
        for n in range(20)
        for kind in "ab"
    ]
    for rows in (completions, preferences):
        splits = split(rows, seed)
        prompts = {side: {json.dumps(row.get("prompt", row.get("input"))) for row in splits[side]} for side in splits}
        assert not prompts["test"] & (prompts["train"] | prompts["validation"])
        assert not prompts["validation"] & prompts["train"]
        assert {side: len(found) for side, found in splits.items()} == {"train": 24, "validation": 8, "test": 8}


def test_a_pair_whose_question_was_asked_after_another_pair_is_on_its_side() -> None:
    rows = []
    for number in range(20):
        asked = conversation(number, 1)
        for said, question in ((asked[:1], asked[1]), ([*asked, {"role": "user", "content": "why?"}], asked[1])):
            rows.append(
                {
                    "input": {"messages": said},
                    "preferred_completion": [question],
                    "non_preferred_completion": [{"role": "assistant", "content": "No"}],
                }
            )
    splits = split(rows)
    first = {side: {row["input"]["messages"][0]["content"] for row in splits[side]} for side in splits}
    assert not first["test"] & first["train"] and len(splits["test"]) == 8


def test_texts_without_a_prompt_are_not_one_group() -> None:
    rows = [{"prompt": "", "completion": f"a text {number}"} for number in range(20)]
    assert {side: len(found) for side, found in split(rows).items()} == {"train": 12, "validation": 4, "test": 4}


def test_rows_that_all_hang_together_leave_no_test_and_the_report_says_so(run: Examine) -> None:
    rows = [{"prompt": "Write a poem:", "completion": f" poem {number}"} for number in range(20)]
    report = run(rows).report
    assert (report.ok, {side: split.examples for side, split in report.splits.items()}) == (True, {"train": 20})
    assert report.training.warning_counts["no_test_split"] == 1
    assert "gate.promote" in str(report.training.problems[-1])
    assert "no_test_split" not in run(rows, splits={"test": 0}).report.training.warning_counts


@st.composite
def logs(draw: st.DrawFn) -> list[Any]:
    """Rows of branching conversations: whole, once per turn, with weights; their order is arbitrary."""
    rows: list[Any] = []
    for number in range(draw(st.integers(10, 16))):
        system = draw(st.sampled_from([None, None, "Be kind.", "Be brief."]))
        greeting = draw(st.sampled_from([None, None, None, "Hello!"]))
        # a few conversations have a first question in common, and its answer or not
        messages = conversation(draw(st.sampled_from([number, number, 99])), draw(st.integers(1, 3)))
        begin = conversation(number, 0, system=system, greeting=greeting)
        for end in range(len(begin), len(messages), 2):
            messages[end]["content"] += draw(st.sampled_from(["", "", "!"]))
        logged = once_per_turn([*begin, *messages])
        kept = draw(st.lists(st.sampled_from(logged), min_size=1, max_size=len(logged)))
        for row in kept:
            said = [dict(message) for message in row["messages"]]
            answers = [message for message in said if message["role"] == "assistant"]
            weights = draw(st.lists(st.integers(0, 1), min_size=len(answers), max_size=len(answers)))
            if any(weights):
                for message, weight in zip(answers, weights, strict=True):
                    message.update({} if weight else {"weight": 0})
            rows.append({"messages": said})
    rows += [{"messages": conversation(1000 + number, 1)} for number in range(12)]
    draw(st.randoms(use_true_random=False)).shuffle(rows)
    return rows


@settings(deadline=None)  # files are written
@given(logs(), st.integers(0, 5))
def test_no_answer_of_a_test_stands_in_the_training_split(rows: list[Any], seed: int) -> None:
    splits = split(rows, seed)
    assert leaks(splits) == []
    assert splits["test"] and splits["validation"] and splits["train"]


@settings(deadline=None)  # files are written
@given(logs(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_nothing(rows: list[Any], chance: random.Random) -> None:
    unique = [json.loads(row) for row in {json.dumps(row, sort_keys=True) for row in rows}]
    splits = split(sorted(unique, key=json.dumps))
    chance.shuffle(unique)
    again = split(unique)
    assert {side: sorted(map(json.dumps, found)) for side, found in again.items()} == {
        side: sorted(map(json.dumps, found)) for side, found in splits.items()
    }

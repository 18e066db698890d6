"""Harmless shapes of logged data pass with a warning, and the splits hold them as every server reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.validate.check import write_splits
from services.validate.reader import Source
from services.validate.scan import ScanControl
from tests.unit.validate.conftest import Examine, WordTokenizer, chats, preferences

USER = {"role": "user", "content": "Where is it?"}
ANSWER = {"role": "assistant", "content": "Here."}
NO_SPLIT = {"validation": 0, "test": 0}


def calling(arguments: Any, identity: str = "call_0") -> dict[str, Any]:
    function = {"name": "look", "arguments": arguments}
    return {"role": "assistant", "tool_calls": [{"id": identity, "type": "function", "function": function}]}


def result(identity: str = "call_0") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": identity, "content": "on the desk"}


SHAPES = [
    ([USER, {**ANSWER, "tool_calls": []}], "empty_tool_calls", [USER, ANSWER]),
    (
        [USER, {"role": "assistant", "content": None, "refusal": "I may not say."}],
        "refusal_as_answer",
        [USER, {"role": "assistant", "content": "I may not say."}],
    ),
    ([USER, calling(""), result(), ANSWER], "empty_arguments", [USER, calling("{}"), result(), ANSWER]),
    ([USER, calling(None), result(), ANSWER], "empty_arguments", [USER, calling("{}"), result(), ANSWER]),
    (
        [USER, calling("{}"), result(), ANSWER, USER, calling("{}"), result(), ANSWER],
        "repeated_call_id",
        [USER, calling("{}"), result(), ANSWER, USER, calling("{}"), result(), ANSWER],
    ),
]


@pytest.mark.parametrize(("logged", "code", "read"), SHAPES)
def test_a_logged_shape_is_a_warning_and_is_written_as_servers_read_it(
    logged: list[Any], code: str, read: list[Any], run: Examine, tmp_path: Path
) -> None:
    rows = [*chats(10), {"messages": logged}, {"messages": read}]
    examined = run(rows, splits=NO_SPLIT, tokenizer=WordTokenizer())
    file = examined.report.training
    assert file.errors == 0 and file.warning_counts[code] == 1 + (code == "repeated_call_id")
    assert file.duplicates == 1  # it is the same example as the one without the flaw
    write_splits(examined, Source(tmp_path / "train-me.jsonl", "rows"), None, tmp_path, ScanControl())
    written = (tmp_path / "train.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["messages"] for line in written] == [*(row["messages"] for row in chats(10)), read]
    assert written[:10] == [json.dumps(row).encode() for row in chats(10)]


def test_an_answer_of_a_pair_is_repaired_too(run: Examine, tmp_path: Path) -> None:
    refusing = preferences(1, 50)[0]
    refusing["non_preferred_completion"] = [{"role": "assistant", "refusal": "No, sorry."}]
    examined = run([*preferences(10), refusing], splits=NO_SPLIT)
    assert examined.report.training.warning_counts == {"refusal_as_answer": 1}
    write_splits(examined, Source(tmp_path / "train-me.jsonl", "rows"), None, tmp_path, ScanControl())
    last = json.loads((tmp_path / "train.jsonl").read_bytes().splitlines()[-1])
    assert last["non_preferred_completion"] == [{"role": "assistant", "content": "No, sorry."}]


def test_ids_that_are_there_twice_in_one_turn_stay_an_error(run: Examine) -> None:
    twice = calling("{}")
    twice["tool_calls"] *= 2
    assert run([*chats(10), {"messages": [USER, twice]}]).report.training.error_counts == {"invalid_tool_call": 1}

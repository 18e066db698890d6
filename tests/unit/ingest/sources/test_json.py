"""JSON of other tools: ShareGPT, Alpaca, preference pairs, lists and nested documents, gzipped or not."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from services.ingest.sources.limits import Limits
from services.ingest.sources.readers.kinds import in_training_format
from shared.errors import InputError
from tests.unit.ingest.sources.conftest import Mine, jsonl

CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


def share(*turns: tuple[str, str], **beside: Any) -> dict[str, Any]:
    return {"id": "x", "conversations": [{"from": who, "value": text} for who, text in turns], **beside}


def test_sharegpt(run: Mine) -> None:
    found = run(
        "dump.jsonl",
        jsonl(
            share(("gpt", "Welcome"), ("human", "Hi 👋"), ("gpt", "Grüezi"), ("gpt", "And hello"), ("human", "Bye")),
            share(("human", "Nobody?")),
            share(("human", "q"), ("gpt", "a"), system="S"),
            share(("martian", "q"), ("gpt", "a")),
        ),
    )
    assert found.turns(0) == [("user", "Hi 👋"), ("assistant", "Grüezi\n\nAnd hello")]
    assert found.turns(1) == [("system", "S"), ("user", "q"), ("assistant", "a")]
    assert "1 have no answer (line 2)" in found.said
    assert "'martian'" in found.said


def test_turns_that_are_cut_off_are_counted(run: Mine) -> None:
    greeted = share(("gpt", "Welcome"), ("human", "Hi"), ("gpt", "Hello"), ("human", "Bye"))
    called = share(("human", "q"), ("function_call", '{"name": "f", "arguments": {}}'), ("tool", "4"), ("human", "?"))
    found = run("dump.jsonl", jsonl(share(("human", "q"), ("gpt", "a")), greeted, called))
    assert "3 turns after the last answer of 2 examples (line 2, 3)" in found.said
    assert "1 turn before the first question of 1 example (line 2)" in found.said
    assert [(cut.turns, cut.examples, cut.first) for cut in found.report.cut] == [(3, 2, (2, 3)), (1, 1, (2,))]


@pytest.mark.parametrize(
    "turns",
    [
        [("human", "6*7?"), ("function_call", '{"name": "times", "arguments": {"a": 6}}'), ("observation", "42")],
        [
            ("human", "6*7?"),
            ("gpt", '<tool_call>\n{"name": "times", "arguments": {"a": 6}}\n</tool_call>'),
            ("tool", "<tool_response>42</tool_response>"),
        ],
    ],
)
def test_calls_of_tools_get_ids(turns: list[tuple[str, str]], run: Mine) -> None:
    _, called, answered, last = run("t.jsonl", jsonl(share(*turns, ("gpt", "It is 42.")))).rows[0]["messages"]
    assert called["tool_calls"][0]["function"] == {"name": "times", "arguments": '{"a": 6}'}
    assert answered == {"role": "tool", "tool_call_id": called["tool_calls"][0]["id"], "content": "42"}
    assert last["content"] == "It is 42."


def test_alpaca_with_empty_inputs(run: Mine) -> None:
    found = run(
        "alpaca.json",
        json.dumps(
            [
                {"instruction": "Add", "input": "1, 2", "output": "3"},
                {"instruction": "Greet", "input": "", "output": "Hi"},
                {"instruction": "Say nothing", "input": "", "output": " "},
            ],
            indent=2,
        ),
    )
    assert [found.turns(row)[0][1] for row in (0, 1)] == ["Add\n\n1, 2", "Greet"]
    assert "1 have no answer (item 3)" in found.said


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "p", "chosen": "good", "rejected": "bad", "prompt_id": "1", "score_chosen": 9.5},
        {"question": "p", "chosen": "good", "rejected": "bad"},
        {
            "prompt": "p",
            "messages": [],
            "chosen": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "good"}],
            "rejected": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "bad"}],
        },
        {
            "prompt": [{"role": "user", "content": "p"}],
            "chosen": [{"role": "assistant", "content": "good"}],
            "rejected": [{"role": "assistant", "content": "bad"}],
        },
        {
            "conversations": [{"from": "human", "value": "p"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
        {"chosen": "\n\nHuman: p\n\nAssistant: good", "rejected": "\n\nHuman: p\n\nAssistant: bad"},
        {
            "conversations": [],
            "chosen": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "good"}],
            "rejected": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "bad"}],
        },
    ],
)
def test_preference_pairs(row: dict[str, Any], run: Mine) -> None:
    [made] = run("pairs.jsonl", jsonl(row)).rows
    assert made["input"]["messages"] == [{"role": "user", "content": "p"}]
    assert made["preferred_completion"] == [{"role": "assistant", "content": "good"}]
    assert made["non_preferred_completion"] == [{"role": "assistant", "content": "bad"}]


def test_prompts_and_completions_of_messages(run: Mine) -> None:
    row = {"prompt": [{"role": "user", "content": "p"}], "completion": [{"role": "assistant", "content": "c"}]}
    assert run("trl.jsonl", jsonl(row)).turns() == [("user", "p"), ("assistant", "c")]


@pytest.mark.parametrize("write", [json.dumps, repr])
def test_messages_that_are_written_in_a_cell(write: Any, run: Mine) -> None:
    assert run("cells.jsonl", jsonl({"messages": write(CHAT["messages"])})).rows[0]["messages"] == CHAT["messages"]


def test_values_that_no_text_and_no_number_can_be(run: Mine) -> None:
    deep = "[" * 900 + "]" * 900
    rows = jsonl({"question": "a", "answer": "b", "n": 1}, {"question": "a\0", "answer": "b", "n": 2})
    found = run(
        "odd.jsonl", rows + '{"question": "a", "answer": ' + deep + ', "n": ' + "9" * 500 + "}\n", filter="n > 0"
    )
    assert len(found.rows) >= 1
    assert "a NUL character" in found.said


def test_pairs_that_say_nothing_are_left_out(run: Mine) -> None:
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    found = run("pairs.jsonl", jsonl(good, good | {"rejected": "a"}, good | {"prompt": ""}, good | {"chosen": None}))
    assert len(found.rows) == 1
    for words in ("both answers are the same", "1 ask nothing (line 3)", "1 have no answer (line 4)"):
        assert words in found.said


@pytest.mark.parametrize(
    "document",
    [
        {"export": {"version": 1, "tickets": [{"ticket": {"question": "q", "answer": "a"}}]}},
        {"data": [{"id": 1, "thread": [{"author": "customer", "body": "q"}, {"author": "agent", "body": "a"}]}]},
        {"t-1": {"question": "q", "answer": "a"}, "t-2": {"question": "q", "answer": "a"}},
    ],
)
def test_nested_json(document: dict[str, Any], run: Mine) -> None:
    assert run("n.json", json.dumps(document, indent=1)).turns() == [("user", "q"), ("assistant", "a")]


ROWS = [{"question": f"q{n}", "answer": f"a{n}"} for n in range(2)]


@pytest.mark.parametrize("name", ["one-line.json", "one-line.jsonl", "one-line.json.gz"])
@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"data": ROWS}, "data"),
        ({"page": {"items": ROWS}, "count": 2}, "page.items"),
        ({"authors": [{"born": 1}] * 9, "data": ROWS}, "data"),
        ({"data": [CHAT, CHAT]}, "data"),
    ],
)
def test_a_document_on_one_line(name: str, document: dict[str, Any], place: str, run: Mine) -> None:
    data = json.dumps(document).encode()
    assert not in_training_format(data, name, None)
    found = run(name, gzip.compress(data) if name.endswith(".gz") else data)
    assert len(found.rows) == 2
    assert f"the list {place} in it" in found.said


@pytest.mark.parametrize(
    "row",
    [
        {**CHAT, "tools": [{"type": "function", "function": {"name": "f"}}]},
        {"question": "q", "answer": "a", "sources": [{"page": 1}]},
    ],
)
def test_a_single_row_with_a_list_in_it_is_a_row(row: dict[str, Any], run: Mine) -> None:
    for text in (json.dumps(row), json.dumps(row, indent=1)):
        assert len(run("one.json", text).rows) == 1


def test_other_lists_of_a_document_are_named(run: Mine) -> None:
    found = run("two.json", json.dumps({"train": ROWS * 2, "test": ROWS}))
    assert len(found.rows) == 4
    assert "the document has other lists: test (2). `source: {records: NAME}`" in found.said
    assert len(run("two.json", json.dumps({"train": ROWS * 2, "test": ROWS}), records="test").rows) == 2


def test_a_document_whose_lists_nobody_understands_is_refused_with_their_names(run: Mine) -> None:
    with pytest.raises(
        InputError, match=r"the list b; the document has other lists: a \(1\)\. `source: {records: NAME}`"
    ):
        run("odd.json", json.dumps({"a": [{"x": 1}], "b": [{"y": 2}, {"y": 3}]}))


def test_a_list_deep_in_a_large_document_is_streamed(run: Mine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.ingest.sources.readers.json_rows.CELL_BYTES", 2**16)
    rows = [{"question": f"q{n}", "answer": "a" * 400} for n in range(500)]
    document = json.dumps({"meta": {"tags": [1, 2]}, "page": {"other": None, "items": rows}, "end": []}, indent=1)
    assert len(run("n.json", document).rows) == 500
    assert len(run("n.json", document, records="page.items").rows) == 500
    with pytest.raises(InputError, match=r"no list 'page\.missing'; the document has meta, page, end"):
        run("n.json", document, records="page.missing")


def test_objects_one_after_the_other(run: Mine) -> None:
    text = "\n".join(json.dumps({"question": f"q{n}", "answer": "a"}, indent=1) for n in range(3))
    assert len(run("n.json", text).rows) == 3


@pytest.mark.parametrize("text", ["[{", '[{"question": "q", "answer": "a"},', '{"data": [1, 2', '["a", "b"]', "{}"])
def test_damaged_or_empty_documents_are_refused_with_words(text: str, run: Mine) -> None:
    with pytest.raises(InputError):
        run("n.json", text)


def test_gzipped_rows_of_a_training_format_stay_byte_for_byte(run: Mine, tmp_path: Any) -> None:
    rows = (jsonl(CHAT, CHAT | {"extra": 1}) + "\n{broken\n").encode()
    path = tmp_path / "rows.jsonl"
    with pytest.raises(json.JSONDecodeError):
        run("a.jsonl.gz", gzip.compress(rows))
    assert path.read_bytes() == rows, "the validator names the broken line, under its own number"


def test_a_list_of_chats_keeps_what_they_have(run: Mine) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    row = {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b", "weight": 0},
            {"role": "user", "content": "c"},
            {"role": "assistant", "tool_calls": [call]},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }  # fmt: skip
    assert run("a.json", json.dumps([row])).rows == [row]


def test_a_gzip_that_unpacks_to_more_than_is_allowed(run: Mine) -> None:
    bomb = gzip.compress(jsonl(share(("human", "q"), ("gpt", "a" * 2**22))).encode())
    assert len(run("bomb.jsonl.gz", bomb, Limits(unpacked_bytes=2**23)).rows) == 1
    with pytest.raises(InputError, match="MAX_UNPACKED_BYTES"):
        run("bomb.jsonl.gz", bomb, Limits(unpacked_bytes=2**21))


def test_an_archive_that_is_no_text_ends_long_before_the_limit(run: Mine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.ingest.sources.readers.streams.BOMB_BYTES", 2**20)
    with pytest.raises(InputError, match="250 times its size"):
        run("bomb.csv.gz", gzip.compress(b"question,answer\n" + b"a,b\n" + b"\n" * 2**24))


def test_a_gzip_that_ends_too_early(run: Mine) -> None:
    with pytest.raises(InputError, match="damaged or ends too early"):
        run("a.jsonl.gz", gzip.compress(jsonl(*[CHAT] * 10_000).encode())[:-40])


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.csv", b"", "is empty"),
        ("a.xlsx", b"\xd0\xcf\x11\xe0 old", "save it as .xlsx"),
        ("a.csv", b"\x28\xb5\x2f\xfd zstd", "zstd"),
        ("a.csv", b"a\x00\x01b" * 40, "binary"),
    ],
)
def test_files_of_other_kinds_are_refused_with_the_remedy(name: str, data: bytes, words: str, run: Mine) -> None:
    with pytest.raises(InputError, match=words):
        run(name, data)

"""What is read as JSON, and what is refused: everything that cannot be written as JSON again, or that other readers
understand differently."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import strict_json
from shared.strict_json import MAX_DEPTH, InvalidJson


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("NaN", "NaN"),
        ('{"a": Infinity}', "a is Infinity"),
        ('{"a": [1, {"b": -Infinity}]}', "a[1].b is -Infinity"),
        ('{"a": 1e999}', "a is a number beyond 1e308"),
        ('{"a": -1e999}', "a is a number beyond 1e308"),
        ('{"a": ' + "1" * 400 + ".0}", "a is a number"),
        ('{"a": ' + "1" * 5000 + ".0}", "a is a number"),
        ('{"a": ' + "1" * 21 + "}", "a is a whole number of more than 64 bits"),
        ('{"a": ' + "1" * 5000 + "}", "a is a whole number of more than 64 bits"),
        ('{"a": -' + "1" * 5000 + "}", "a is a whole number of more than 64 bits"),
        (r'{"a": "\ud800"}', "a holds half of"),
        (r'{"a": {"b": ["\udc00\ud800"]}}', "a.b[0] holds half of"),
        (r'{"\ud83d": 1}', "holds half of"),
        ('{"a": "\ud800"}', "half of"),
        ("[" * 101 + "]" * 101, "nested more than 100 levels deep"),
        ("[" * 100_000, "nested more than 100 levels deep"),
        ('{"a":' * 100_000, "nested more than 100 levels deep"),
        ("", "empty"),
        ("  \n ", "empty"),
        ('{"a": 1,\n "b": }', "line 2, column 7"),
        ("{} {}", "line 1, column 4"),
        ("[NaN, }", "line 1, column 7"),
        ('{"a": "\x01"}', "control character"),
    ],
)
def test_what_is_refused_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(InvalidJson) as caught:
        strict_json.loads(text)
    assert said in str(caught.value)
    str(caught.value).encode()  # can be sent to the client
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("raw", [b"\xff{}", '{"a": 1}'.encode("utf-16"), b'{"a": "\xed\xa0\x80"}', b'{"a": "\xc3'])
def test_bytes_that_are_not_utf_8_are_refused_with_their_place(raw: bytes) -> None:
    with pytest.raises(InvalidJson, match=r"byte \d+ .* not UTF-8"):
        strict_json.loads(raw)


def test_a_byte_order_mark_is_skipped() -> None:
    assert strict_json.loads(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


def test_ordinary_values_are_read_as_by_json() -> None:
    text = r'{"a": [1, -0.5e-3, true, null, "\ud83d\ude00 \\ud800 é"], "b": 18446744073709551615, "c": 1e-999, "c": {}}'
    assert strict_json.loads(text) == json.loads(text)  # of a repeated key the last counts
    nested = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert strict_json.loads(nested) == json.loads(nested)


@pytest.mark.parametrize("piece", ["[],", '{"a": 1},', r'"\ud83d\ude00",', '{"a": [[1], "x"]},'])
@pytest.mark.timeout(60)  # which a time that grows with the square of the values would exceed
def test_many_values_are_read_as_by_json(piece: str) -> None:
    text = "[" + piece * 30_000 + "0]"
    assert strict_json.loads(text) == json.loads(text)


def test_many_brackets_beside_each_other_are_not_deep() -> None:
    assert len(strict_json.loads("[" + "[]," * 5000 + "[]]")) == 5001


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(1 - 2**64, 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, st.booleans())
def test_what_can_be_written_is_read_back_equal(value: Any, ascii_only: bool) -> None:
    written = json.dumps(value, ensure_ascii=ascii_only)
    assert strict_json.loads(written) == value
    assert strict_json.loads(written.encode()) == value
    strict_json.check(value)


ODD = st.sampled_from([math.nan, math.inf, -math.inf, 2**64, -(10**30), "\ud800", "a\udfff"])


@given(ODD, st.lists(st.sampled_from(["list", "dict"]), max_size=5))
def test_what_cannot_be_written_is_refused_wherever_it_is(odd: Any, around: list[str]) -> None:
    value = odd
    for kind in around:
        value = [0, value] if kind == "list" else {"first": 0, "key": value}
    with pytest.raises(InvalidJson):
        strict_json.loads(json.dumps(value))
    with pytest.raises(InvalidJson):
        strict_json.check(value)


@given(st.binary())
def test_no_bytes_end_in_another_error(raw: bytes) -> None:
    try:
        value = strict_json.loads(raw)
    except InvalidJson as error:
        str(error).encode()
    else:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


def test_a_python_value_that_is_no_json_is_refused() -> None:
    for value in ({1: 2}, {"a": b"bytes"}, {"a": object()}, {"a": {1, 2}}):
        with pytest.raises(InvalidJson):
            strict_json.check(value)
    strict_json.check({"a": (1, 2.5, "x", None)})
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(InvalidJson, match="nested"):
        strict_json.check(circle)


# --- how many values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "[" + "[]," * 1_200_000 + "[]]",
        "[" + "{}," * 1_200_000 + "{}]",
        '{"a": [' + "0," * 1_200_000 + "0]}",
        "[" + '"",' * 1_200_000 + '""]',
        "[" + r'"\\",' * 1_200_000 + '""]',
        "{" + ",".join(f'"{number}":0' for number in range(1_010_000)) + "}",
        '{"a": "' + "[" * 100_000 + '", "b": [' + "[]," * 200_000 + "[]]}",
        '"" ' * 1_200_000,
    ],
    ids=["lists", "objects", "numbers", "texts", "escapes", "fields", "after a text", "no JSON at all"],
)
def test_too_many_values_are_refused_before_any_is_made(text: str) -> None:
    """Made, they take many times the memory of the text."""
    data = text.encode()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidJson):
            strict_json.loads(data)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(data)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("piece", ["[],", "{},", "0,"])
def test_what_is_refused_takes_no_more_memory_than_its_text(piece: str) -> None:
    data = ("[" + piece * 1_200_000 + "0]").encode()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidJson):
            strict_json.loads(data)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(data)
    finally:
        tracemalloc.stop()


def test_commas_and_brackets_in_a_text_are_no_values() -> None:
    code = r'[1, 2, {"a": "b"}], ' * 500_000
    assert strict_json.loads(json.dumps({"a": code})) == {"a": code}


def test_a_prompt_of_hundreds_of_thousands_of_tokens_is_read() -> None:
    body = {"prompt": list(range(900_000)), "messages": [{"role": "user"}] * 20_000}
    assert strict_json.loads(json.dumps(body)) == body


@pytest.mark.parametrize(
    ("text", "said"), [("[" + "[]," * 200_000 + "0]", "lists and objects"), ("[" + "0," * 2_000_000 + "0]", "values")]
)
def test_the_limit_is_named(text: str, said: str) -> None:
    with pytest.raises(InvalidJson, match=said):
        strict_json.loads(text)

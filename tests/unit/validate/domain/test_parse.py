"""One line of bytes: an object, or findings with a place; never an exception."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.validate.check import check, examine
from services.validate.domain.chat_messages import KEYS
from services.validate.domain.parse import MAX_DEPTH, MAX_FLAWS, parse
from services.validate.domain.report import Report
from services.validate.reader import Reader
from services.validate.scan import ScanControl
from shared import strict_json
from shared.events import JobSpec
from shared.settings import ValidationSettings
from tests.unit.validate.conftest import WordTokenizer, write


@pytest.mark.parametrize(
    ("raw", "code", "field", "remedy"),
    [
        (b'{"a": "\xff"}', "invalid_utf8", "", "UTF-8"),
        (b'{"a": NaN}', "not_a_number", "a", "null"),
        (b'{"a": [1, {"b": -Infinity}]}', "not_a_number", "a[1].b", "null"),
        (b'{"a": 18446744073709551616}', "number_too_large", "a", "string"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "number_too_large", "a", "string"),
        (b'{"a": 1e999}', "number_too_large", "a", "string"),
        (b'{"m": [{"role": 1, "role": 2}]}', "duplicate_key", "m[0].role", "keep one"),
        (b'{"a": "\\ud83d"}', "lone_surrogate", "a", "both halves"),
        (b'{"a": "\\uDE00\\uD83D"}', "lone_surrogate", "a", "both halves"),
        (b'{"\\ud800": 1}', "lone_surrogate", "\\ud800", "both halves"),
        (b'{"a": "x\\u0000y"}', "nul_character", "a", "remove"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "nested_too_deeply", "", "flatten"),
        (b'{"a":' * 100_000, "nested_too_deeply", "", "flatten"),
        (b'["a"]', "not_an_object", "", "JSONL"),
        (b'"a"', "not_an_object", "", "one object per line"),
        (b"{", "invalid_json", "", "single line"),
        (b"{'a': 1}", "invalid_json", "", "double quotes"),
        (b'{"a": 1,}', "invalid_json", "", "comma"),
        (b'{"a": 1} {"a": 2}', "invalid_json", "", "line of its own"),
        (b'{"a": "\x01"}', "invalid_json", "", "JSON library"),
    ],
)
def test_a_flaw_has_a_code_a_place_and_a_remedy(raw: bytes, code: str, field: str, remedy: str) -> None:
    found = parse(raw)
    assert isinstance(found, list)
    assert (found[0].code, found[0].field) == (code, field)
    assert remedy in found[0].remedy


@pytest.mark.parametrize(
    "value",
    [{}, {"a": 2**63}, {"a": "\U0001f600 é \\ud83d"}, {"a": [[], {}] * 100}, {"a": -1.5e300, "b": None, "c": True}],
)
def test_what_json_allows_passes_unchanged(value: dict[str, Any]) -> None:
    assert parse(json.dumps(value).encode()) == value
    assert parse(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=200) | st.text(alphabet='{}[]":,\\u0dn1eE-. ', max_size=80).map(str.encode))
def test_no_line_makes_the_parser_raise(raw: bytes) -> None:
    found = parse(raw)
    assert isinstance(found, dict) or all(one.message and one.remedy for one in found)


@given(st.binary(max_size=400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_file_makes_the_validator_raise(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any"
    path.write_bytes(content)
    report = check(path, spec=JobSpec(), base_location=None, limits=ValidationSettings(max_line_bytes=64))
    assert not report.ok
    assert report.failure is not None


WORDS = sorted({*set().union(*KEYS.values()), "messages", "tools", "type", "function", "arguments", "id", "text"})
VALUES = st.recursive(
    st.none() | st.booleans() | st.sampled_from([0, 1, 2.5]) | st.sampled_from(["", "{}", "text", "function", *KEYS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)
MESSAGES = st.builds(
    lambda role, rest: {"role": role, **rest},
    st.sampled_from([*KEYS]),
    st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=3),
)


@given(
    st.lists(MESSAGES | VALUES, max_size=3) | VALUES,
    st.dictionaries(st.sampled_from(["tools", "functions", "parallel_tool_calls"]), VALUES, max_size=2),
)
@example([{"role": "user", "content": [{"type": "text", "text": "hi"}]}], {})
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
def test_a_row_is_refused_or_can_be_read_by_template_and_digest(tmp_path: Path, messages: Any, beside: Any) -> None:
    """Later steps must be able to read every row that passes the rules. The word tokenizer normalises rows like the
    real one, and raises if it cannot."""
    answered = [*messages, {"role": "assistant", "content": "yes"}] if isinstance(messages, list) else messages
    source = write(tmp_path / "row", [{"messages": answered, **beside}])
    examined = examine(
        source, None, spec=JobSpec(), tokenizer=WordTokenizer(), limits=ValidationSettings(), control=ScanControl()
    )
    file = examined.report.training
    refused = any(problem.line == 1 and problem.severity == "error" for problem in file.problems)
    assert file.usable == (0 if refused else 1)
    assert all(problem.message and problem.remedy for problem in file.problems)


ODD = [
    *("NaN", "-Infinity", "1e999", "9" * 5000, "9" * 30, r'"\ud800"', r'"\udfff\ud800"', r'"\u0000"'),
    *("[" * 70 + "]" * 70, '{"a":' * 99_999, "[" * 99_999, '{"a": 1, "a": 2}', '"\xed\xa0\x80"', "nan", "+1", "01"),
]
PLACES = [
    '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": ODD}]}',
    '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes", "weight": ODD}]}',
    '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}], "more": ODD}',
    '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}], "tools": [{"type": '
    '"function", "function": {"name": "f", "parameters": {"type": "object", "default": ODD}}}]}',
    '{"prompt": "hi", "completion": ODD}',
    '{"prompt": ODD, "completion": "yes"}',
    '{"input": {"messages": [{"role": "user", "content": ODD}]}, "preferred_completion": [{"role": "assistant", '
    '"content": "yes"}], "non_preferred_completion": [{"role": "assistant", "content": "no"}]}',
    '{"messages": ODD}',
    "ODD",
]


@pytest.mark.parametrize("place", PLACES)
def test_a_value_that_is_no_json_is_a_finding_of_its_line(tmp_path: Path, place: str) -> None:
    good = place.replace("ODD", "1" if "weight" in place or "default" in place else '"fine"')
    lines = [good, *(place.replace("ODD", odd) for odd in ODD), good]
    path = tmp_path / "rows"
    path.write_bytes("\r\n".join(lines).encode("latin-1"))
    report = check(path, spec=JobSpec(), base_location=None, limits=ValidationSettings())
    errors = [problem for problem in report.training.problems if problem.severity == "error"]
    assert {problem.line for problem in errors} >= set(range(2, len(ODD) + 2))
    assert all(problem.message and problem.remedy for problem in errors)
    assert Report.model_validate(strict_json.loads(report.model_dump_json())) == report
    assert report.failure is not None


@pytest.mark.parametrize("piece", ["NaN", "1e999", r'"\ud800"', '{"a": NaN}', "9" * 30])
def test_a_row_of_a_million_flaws_is_told_by_its_first(piece: str) -> None:
    found = parse(b'{"messages": [' + f"{piece},".encode() * 100_000 + b"0]}")
    assert isinstance(found, list) and len(found) == MAX_FLAWS
    assert found[0].field.startswith("messages[0]")


@given(st.binary(max_size=200) | st.text(alphabet='{}[]":,\\u0dn1eE-. ', max_size=80).map(str.encode))
def test_what_the_parser_takes_every_strict_reader_takes(raw: bytes) -> None:
    """The trainer and the evaluator read validated rows leniently."""
    found = parse(raw)
    if isinstance(found, dict):
        assert strict_json.loads(raw) == found


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_come_without_their_ends_and_without_a_byte_order_mark(end: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbfone" + end + b"two" + end + b"12345678" + end + b"last")
    assert list(Reader(path, 8).rows()) == [(1, b"one"), (2, b"two"), (3, b"12345678"), (4, b"last")]


@pytest.mark.parametrize(("levels", "taken"), [(MAX_DEPTH, True), (MAX_DEPTH + 1, False)])
def test_the_deepest_row_that_is_taken(levels: int, taken: bool) -> None:
    inside = levels - 1  # the row itself is the first level
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        raw = '{"a": ' + opening * inside + ("1" if opening != "[" else "") + closing * inside + "}"
        assert isinstance(parse(raw.encode()), dict) == taken

"""The quick way through a file and the thorough one come to the same, whatever its rows."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.validate import intake
from services.validate.check import examine
from services.validate.domain.content import Row
from services.validate.domain.identity import identify
from services.validate.domain.parse import parse
from services.validate.plain import plain_rows
from services.validate.reader import Block
from services.validate.scan import ScanControl
from shared.events import JobSpec
from shared.settings import ValidationSettings
from tests.support.fuzz.values import broken, mutated, noise
from tests.unit.validate.conftest import chats, write

TEXTS = [
    *(
        "Hello",
        "",
        " ",
        "\n",
        "\u00a0",
        "\u2003x",
        "\u3000",
        "\u0085",
        "\x1f",
        "\x00",
        "\x7f",
        "東京",
        "はい",
        "«a»",
        "🙂",
    ),
    *('say "x": y', ":", ":x", "x:", '":"', "role", "content", "messages", "\\", "\\u0041", "a/b", '{"role": "user"}'),
]
LITERALS = [  # as JSON that json.dumps does not write
    *(
        r'"\u0041"',
        r'"\u0022"',
        r'"\u0000"',
        r'"\ud800"',
        r'"\ud83d\ude00"',
        r'"\/"',
        r'"\x"',
        '"\t"',
        '"\x01"',
        "null",
    ),
    *("1", "1e999", "NaN", "[]", "{}", '[{"type": "text", "text": "a"}]', '{"content": "a", "role": "user"}', '"a" '),
]
CONTENTS = st.sampled_from([*(json.dumps(text) for text in TEXTS), *LITERALS]) | st.sampled_from(TEXTS).map(
    lambda text: json.dumps(text, ensure_ascii=False)
)
ROLES = st.sampled_from(
    ['"user"', '"assistant"', '"system"', '"developer"', '"tool"', r'"\u0075ser"', '"User"', "null"]
)
COMMON_ROLES = st.sampled_from(['"user"', '"assistant"'])
KEYS = st.sampled_from(['"role"', '"content"', r'"\u0072ole"', '"name"', '"weight"'])


@st.composite
def messages(draw: st.DrawFn) -> str:
    entries = [f'"role": {draw(COMMON_ROLES | ROLES)}', f'"content":{draw(CONTENTS)}']
    if draw(st.integers(0, 9)) == 0:
        entries.append(f"{draw(KEYS)}: {draw(CONTENTS | ROLES | st.sampled_from(['0', '1', 'true']))}")
    return "{" + ",".join(draw(st.permutations(entries))) + "}"


@st.composite
def rows(draw: st.DrawFn) -> bytes:
    asked = [*draw(st.lists(messages(), max_size=3)), '{"role": "user", "content": "a"}']
    said = [*asked, f'{{"role": "assistant", "content": {draw(CONTENTS)}}}'] if draw(st.integers(0, 9)) else asked
    text = '{"messages": [' + ", ".join(said) + "]}"
    if draw(st.integers(0, 19)) == 0:
        text = text[:-1] + ', "messages": []}'
    return text.encode("utf-8", "surrogatepass").replace(b"\n", b" ")


def block_of(lines: list[bytes]) -> Block:
    return Block(1, b"\n".join(lines), [end - 1 for end in accumulate(len(line) + 1 for line in lines)])


Outcome = tuple[dict[str, Any], bytes, list[int], list[int]]


def outcome(lines: list[bytes], validation: list[bytes] | None = None) -> Outcome:
    with tempfile.TemporaryDirectory() as name:
        examined = examine(
            write(Path(name) / "rows", lines),
            write(Path(name) / "own", validation) if validation else None,
            spec=JobSpec(),
            tokenizer=None,
            limits=ValidationSettings(),
            control=ScanControl(),
        )
    trained = examined.training
    kept = (bytes(trained.usable), trained.ranks.tolist(), trained.tokens.tolist()) if trained else (b"", [], [])
    return (examined.report.model_dump(), *kept)


Compare = Callable[..., Outcome]


@pytest.fixture(scope="module")
def both() -> Compare:
    """The outcome of some lines, which must be the same with and without the quick way."""

    def compare(lines: list[bytes], validation: list[bytes] | None = None) -> Outcome:
        quick = outcome(lines, validation)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(intake, "plain_rows", lambda block: None)
            thorough = outcome(lines, validation)
        assert quick == thorough
        return quick

    return compare


GOOD = [json.dumps(row).encode() for row in chats(20)]


@given(st.lists(rows(), min_size=1, max_size=30))
@settings(max_examples=80, deadline=None)
def test_whatever_the_rows_both_ways_find_the_same(both: Compare, some: list[bytes]) -> None:
    both([*GOOD, *some])


@given(st.lists(rows(), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_a_row_that_passes_the_quick_way_is_what_the_rules_say_of_it(some: list[bytes]) -> None:
    found = plain_rows(block_of(some))
    if found is None:
        return
    found.indexes = range(len(found))
    for quick in found.rows():
        value = parse(some[quick.line - 1])
        assert isinstance(value, dict) and value == quick.value
        row = Row(quick.line, value, "chat")
        identify(row)
        assert (row.group, row.example, row.prompt) == (quick.group, quick.example, quick.prompt)
        assert row.answer & 0xFFFFFFFF == quick.answer & 0xFFFFFFFF
        own = int.from_bytes(quick.group[:8], "little")
        assert row.turns == quick.turns or [(turn.digest, turn.trained, turn.asked) for turn in row.turns] == [
            (own, True, True)
        ]


@pytest.mark.parametrize("seed", range(6))
def test_damaged_files_are_the_same_both_ways(seed: int, both: Compare) -> None:
    random = Random(seed)
    lines = [json.dumps(row, ensure_ascii=bool(seed % 2)).encode() for row in chats(400)]
    for _ in range(40):
        place = random.randrange(len(lines))
        flaw = random.choice(
            [
                lambda row: mutated(json.loads(row), random),
                lambda row: broken(json.loads(row), random),
                lambda row: noise(random),
                lambda row: row.replace(b'"role"', b'"role": "user", "role"', 1),
                lambda row: row.replace(b"{", b'{"content": "x", ', 1),
                lambda row: lines[random.randrange(len(lines))],
                lambda row: b" " * random.randrange(3),
                lambda row: row + b"\r",
            ]
        )
        if lines[place].startswith(b'{"messages'):
            try:
                lines[place] = flaw(lines[place]).replace(b"\n", b" ")
            except ValueError:  # it has a flaw already
                continue
    both(lines)
    only_chats = [line for line in lines if re.fullmatch(rb'\{"messages": \[\{"role": "system".*\}\]\}', line)]
    both(only_chats[:300], only_chats[200:])


def test_usual_rows_do_pass_the_quick_way() -> None:
    long = [{"role": role, "content": f'"{n}":\n{n}'} for n in range(5) for role in ("user", "assistant")]
    values = [*chats(10), {"messages": long}, {"messages": [{"role": "developer", "content": "ä"}, *long]}]
    for ascii_only in (True, False):
        for separators in ((", ", ": "), (",", ":")):
            lines = [json.dumps(row, ensure_ascii=ascii_only, separators=separators).encode() for row in values]
            found = plain_rows(block_of(lines))
            assert found is not None and len(found) == len(values)


def test_a_key_that_is_there_twice_is_found_among_many_good_rows(both: Compare) -> None:
    twice = b'{"messages":[{"role":"user","role":"user","content":"a"},{"role":"assistant","content":"b"}]}'
    report, *_ = both([*GOOD, twice, *GOOD])
    assert report["training"]["error_counts"] == {"duplicate_key": 1}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (rb'"role":"user","content":"\u0022\u0022\u0022\u0022"', "duplicate_key"),
        (rb'"content":"\u0022\u0022","content":"\\u0022"', "duplicate_key"),
        (b'"content":"\xff"', "invalid_utf8"),
        (rb'"content":"a\u0000b"', "nul_character"),
        (rb'"content":"\ud83d"', "lone_surrogate"),
    ],
)
def test_what_hides_behind_escapes_is_found_among_many_good_rows(content: bytes, code: str, both: Compare) -> None:
    hidden = b'{"messages":[{"role":"user",' + content + b'},{"role":"assistant","content":"\\u0022b"}]}'
    report, *_ = both([*GOOD, hidden, *GOOD])
    assert report["training"]["error_counts"] == {code: 1}


def test_case_and_outer_space_make_no_other_answer_on_either_way(both: Compare) -> None:
    def row(answer: str) -> bytes:
        return json.dumps(
            {"messages": [{"role": "user", "content": "é"}, {"role": "assistant", "content": answer}]}
        ).encode()

    report, *_ = both([*GOOD, row("Yes, a cafe"), row(" yes, A CAFE "), *GOOD])
    assert report["training"]["contradictions"]["prompts"] == 0
    report, *_ = both([*GOOD, row("Yes"), row("No"), *GOOD])
    assert report["training"]["contradictions"]["prompts"] == 1

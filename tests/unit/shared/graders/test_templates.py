"""Templates of graders."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.graders.domain.templates import (
    BadTemplate,
    MissingVariable,
    SampleIsNoJson,
    TooLong,
    check,
    fill,
    variables,
)

ITEM = {
    "x": {"y": "deep", "a b": 7, "list": ["p", {"q": "r"}]},
    "no": None,
    "yes": True,
    "n": 1.5,
    "ü": "ö",
    "a-b": "d",
}


def filled(template: str, sample: str = '{"x": [1, {"k": "v"}]}', item: dict[str, Any] | None = None) -> str:
    return fill(template, variables(ITEM if item is None else item, sample))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{{item.x.y}}", "deep"),
        ("<{{ item.x.y }}|{{item.n}}>", "<deep|1.5>"),
        ("{{item.x.list}}", '["p", {"q": "r"}]'),
        ("{{item.x.list[0]}}{{item.x.list[1].q}}{{item.x.list.0}}", "prp"),
        ("{{item['x'][\"a b\"]}}", "7"),
        ("{{item.yes}} {{item.no}}", "true null"),
        ("{{item.ü}}{{item.a-b}}", "öd"),
        ("{{sample.output_text}}", '{"x": [1, {"k": "v"}]}'),
        ("{{sample.output_json.x[1].k}}", "v"),
        ("{{sample.output_json}}", '{"x": [1, {"k": "v"}]}'),
        ("{{sample.choices[0].message.content}}", '{"x": [1, {"k": "v"}]}'),
        ("{{sample.output_tools}}", "[]"),
        ('{"answer": "{{item.x.y}}"}', '{"answer": "deep"}'),
        ("{{{item.x.y}}}", "{deep}"),
        ("{{ open", "{{ open"),
        ("{item.x}", "{item.x}"),
    ],
)
def test_values_are_put_in(template: str, expected: str) -> None:
    check(template)
    assert filled(template) == expected


def test_what_is_put_in_is_no_template() -> None:
    assert filled("{{item.a}}", item={"a": "{{item.b}}", "b": "secret"}) == "{{item.b}}"
    assert filled("{{sample.output_text}}", "{{item.x}}") == "{{item.x}}"


ABSENT = ["item.z", "item.x.z", "item.x.list[2]", "item.x.y.z", "item.n.real", "item.x.list.-1", "item.__class__"]


@pytest.mark.parametrize("mark", [*ABSENT, "x", " 1 + 1 ", "", "item.", "sample.other", "sample.output_json.z"])
def test_what_is_not_there_is_a_missing_variable(mark: str) -> None:
    with pytest.raises(MissingVariable):
        filled(f"{{{{{mark}}}}}")


def test_a_sample_that_is_no_json_matters_only_where_it_is_used_as_json() -> None:
    for sample in ("hello", "", '{"a":', "NaN", "[" * 500):
        with pytest.raises(SampleIsNoJson):
            filled("{{sample.output_json.x}}", sample)
        with pytest.raises(SampleIsNoJson):
            filled("{{sample.output_json}}", sample)
        assert filled("{{sample.output_text}}", sample) == sample
        assert '"output_text"' in filled("{{sample}}", sample)


@pytest.mark.parametrize("mark", ["x", "samples.output_text", " 1 + 1 ", "", "item.", "item x"])
def test_a_mark_that_nothing_can_fill_is_told(mark: str) -> None:
    template = f"{{{{{mark}}}}}"
    with pytest.raises(BadTemplate) as told:
        check(f"a {{{{item.a}}}} {template}")
    assert template in str(told.value)


def test_sizes_and_time_are_bounded() -> None:
    with pytest.raises(TooLong):
        filled("{{item.a}}" * 1000, item={"a": "x" * 10_000})
    begun = time.process_time()
    for hostile in (
        "{{" * 120_000,
        "{{item." * 30_000,
        "{{" + " " * 250_000,
        "{{ item" + "[" * 250_000,
        "} }{{" * 50_000,
    ):
        check(hostile)
        assert filled(hostile) == hostile
    assert time.process_time() - begun < 5


PIECES = ["{{", "}}", "item", "sample", ".", "[0]", "['x']", "x", "output_json", " ", "{", "}", '"', "é", "\n"]


@given(
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=20).map("".join), st.text(max_size=20)
)
def test_any_template_is_filled_or_refused(template: str, sample: str) -> None:
    with contextlib.suppress(MissingVariable, SampleIsNoJson):
        assert isinstance(filled(template, sample), str)
    try:
        check(template)
    except BadTemplate as refused:
        with pytest.raises((MissingVariable, SampleIsNoJson)):
            filled(template, sample)
        assert str(refused)

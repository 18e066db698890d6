"""The formulas of multi graders against Python's own arithmetic."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.graders.domain.formula import MAX_DEPTH, BadFormula, NoResult, read

SCORES = {"a": 0.5, "b": 2.0, "c_1": -3.0}


def value(text: str) -> float:
    return read(text, SCORES).value(SCORES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        (" a ", 0.5),
        ("a + b * c_1", -5.5),
        ("(a + b) * c_1", -7.5),
        ("10 - 4 - 3", 3),
        ("16 / 4 / 2", 2),
        ("2 ^ 3 ^ 2", 512),
        ("-b ^ 2", -4),
        ("(-b) ^ 2", 4),
        ("b ^ -1", 0.5),
        ("--a", 0.5),
        ("+a - +b", -1.5),
        (".5 + 1. + 1e-1", 1.6),
        ("min(a, b, c_1)", -3),
        ("max(a)", 0.5),
        ("abs(c_1)", 3),
        ("floor(a) + ceil(a)", 1),
        ("exp(0) + sqrt(4) + log(1)", 3),
        ("max(min(a, 1), 0) ^ 2", 0.25),
        ("0.5*a\n+\t0.5 * b", 1.25),
    ],
)
def test_values(text: str, expected: float) -> None:
    assert value(text) == pytest.approx(expected)


def test_the_names_that_a_formula_uses_are_known() -> None:
    assert read("min(a, 1) + a + b", SCORES).names == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "ends where a number"),
        ("a +", "ends where a number"),
        ("a b", "'b' at character 3 is not expected"),
        ("(a", "a ')' is missing before its end"),
        ("a)", "')' at character 2"),
        ("d + 1", "'d' at character 1 is no grader and no function: the graders are a, b, c_1"),
        ("min", "write min(…)"),
        ("min()", "stands where a number"),
        ("min(a,)", "stands where a number"),
        ("sqrt(a, b)", "sqrt takes one"),
        ("a ** 2", "write a power as '^'"),
        ("a % 2", "'%' at character 3 is not allowed"),
        ("a if b else 1", "not expected"),
        ("__import__('os')", "no"),
        ("a.real", "not allowed"),
        ("a[0]", "not allowed"),
        ("'a'", "not allowed"),
        ("a == b", "not allowed"),
        ("1e999", "too large"),
        ("²", "not allowed"),
        ("١", "not allowed"),
        ("(" * 5000 + "a" + ")" * 5000, "make it shorter"),
        ("(" * 500 + "a" + ")" * 500, "write it flatter"),
        ("-" * 1000 + "a", "write it flatter"),
        ("2" + "^2" * 500, "write it flatter"),
    ],
)
def test_what_is_no_formula_is_refused_and_told(text: str, told: str) -> None:
    with pytest.raises(BadFormula) as refused:
        read(text, SCORES)
    assert told in str(refused.value)


def test_the_limit_of_the_depth_is_not_met_by_what_stands_side_by_side() -> None:
    assert value(" + ".join(["(((a)))"] * 200)) == 100
    assert value("(" * (MAX_DEPTH - 1) + "a" + ")" * (MAX_DEPTH - 1)) == 0.5


@pytest.mark.parametrize(
    "text",
    [
        "a / 0",
        "log(0)",
        "log(0 - 1)",
        "sqrt(c_1)",
        "c_1 ^ 0.5",
        "exp(1000)",
        "10 ^ 400",
        "1e308 * 10",
        "0 ^ -1",
        "9^9^9^9",
    ],
)
def test_what_has_no_finite_value_ends_at_once(text: str) -> None:
    formula = read(text, SCORES)
    begun = time.process_time()
    with pytest.raises(NoResult):
        formula.value(SCORES)
    assert time.process_time() - begun < 1


NUMBERS = st.sampled_from(["a", "b", "c_1", "0", "1.5", ".25", "2e0"])
FORMULAS = st.recursive(
    NUMBERS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/^"), inner).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"),
        st.tuples(st.sampled_from(["abs", "floor", "ceil", "sqrt", "log", "exp"]), inner).map(
            lambda parts: f"{parts[0]}({parts[1]})"
        ),
        st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(
            lambda parts: f"{parts[0]}({parts[1]},{parts[2]})"
        ),
        inner.map(lambda text: f"(-{text})"),
    ),
    max_leaves=12,
)
PYTHON = {"min": min, "max": max, "abs": abs, "floor": math.floor, "ceil": math.ceil} | {
    name: getattr(math, name) for name in ("exp", "sqrt", "log")
}


@given(FORMULAS)
def test_a_formula_has_the_value_that_python_gives_it(text: str) -> None:
    try:
        ours = value(text)
    except NoResult:
        return
    theirs = eval(text.replace("^", "**"), {"__builtins__": {}}, {**PYTHON, **SCORES})
    assert ours == pytest.approx(theirs, rel=1e-6)


@given(st.one_of(st.text(max_size=80), st.text("ab1.+-*/^(),minsqrt ", max_size=80)))
def test_any_text_has_a_finite_value_or_is_refused(text: str) -> None:
    try:
        assert math.isfinite(value(text))
    except (BadFormula, NoResult) as refused:
        assert str(refused)

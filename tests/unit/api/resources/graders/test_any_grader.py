"""Whatever JSON a client sends as a grader: it is one, or the error names a field of it."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InputError
from shared.graders.domain.graders import parse
from shared.graders.domain.templates import variables
from shared.graders.run import _guarded
from tests.unit.api.resources.graders.test_validate import FULL_SCORE, LABEL, MULTI, ONE, PYTHON, STRING, TEXT

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
GRADERS: list[dict[str, Any]] = [STRING, TEXT, FULL_SCORE, LABEL, MULTI, ONE, PYTHON]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, child in children for found in places(child, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    value = copy.deepcopy(value)
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = new
    return value


CHANGED = st.sampled_from(GRADERS).flatmap(
    lambda grader: st.tuples(st.sampled_from(places(grader)), JSON).map(
        lambda change: replaced(grader, change[0], change[1])
    )
)


@given(JSON | CHANGED, st.booleans(), st.booleans(), st.text(max_size=8), JSON)
def test_any_grader_is_read_or_refused(value: Any, strictly: bool, labels: bool, sample: str, item: Any) -> None:
    try:
        grader = parse(value, strictly=strictly)
        values = variables(item if isinstance(item, dict) else {"answer": item}, sample)
        for part in grader.graders.values() if grader.type == "multi" else [grader]:
            _guarded(part, values, "grader", labels)
    except InputError as refused:
        assert refused.param is not None and refused.param.startswith("grader")
        assert refused.message.startswith(refused.param)
        assert refused.code in ("invalid_grader", "unsupported_grader")

"""Which checkpoints a run may continue from."""

from __future__ import annotations

from typing import Any

import pytest

from services.trainer.engine.state import State, read_state
from shared.errors import InputError

pytestmark = pytest.mark.torch

MINE = {"job_id": "a", "model": "ft:a", "rows": "123", "seed": 0}
RETRY = {"job_id": "b", "model": "ft:b"}


@pytest.mark.parametrize(
    ("changed", "differing"),
    [
        ({}, None),
        (RETRY, None),  # another job with the same rows
        ({"rows": "456"}, "rows"),
        (RETRY | {"rows": "456"}, "rows"),
        (RETRY | {"rows": None}, "job_id, model"),  # a plan that was made by hand
        ({"rows": None}, None),
        (RETRY | {"seed": 1}, "seed"),
    ],
)
def test_a_checkpoint_of_another_job_fits_only_with_the_same_rows_and_settings(
    changed: dict[str, Any], differing: str | None
) -> None:
    theirs = State(identity={**MINE, **changed}, step=7).model_dump_json().encode()
    if differing is None:
        assert read_state(theirs, MINE).step == 7
        return
    with pytest.raises(InputError, match=rf"\({differing} differ\)") as caught:
        read_state(theirs, MINE)
    assert caught.value.code == "checkpoint_mismatch"


def test_a_checkpoint_of_an_older_version_does_not_name_its_rows() -> None:
    old = {name: value for name, value in MINE.items() if name != "rows"}
    assert read_state(State(identity=old, step=7).model_dump_json().encode(), MINE).step == 7

from __future__ import annotations

import pytest

from shared.bearer import Verdict, judge


@pytest.mark.parametrize(
    ("authorization", "verdict"),
    [
        ("Bearer first", Verdict.ACCEPTED),
        ("bearer  second ", Verdict.ACCEPTED),
        ("Bearer firs", Verdict.UNKNOWN),
        ("Bearer schlüssel", Verdict.UNKNOWN),
        ("Bearer ", Verdict.MISSING),
        ("Basic first", Verdict.MISSING),
        ("first", Verdict.MISSING),
        (None, Verdict.MISSING),
    ],
)
def test_only_a_known_key_is_accepted(authorization: str | None, verdict: Verdict) -> None:
    assert judge(("first", "second"), authorization) is verdict


def test_without_keys_everyone_may_ask() -> None:
    assert judge((), None) is Verdict.ACCEPTED

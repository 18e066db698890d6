"""Which API keys are accepted."""

from __future__ import annotations

import pytest

from shared.http.bearer import refusal


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("Bearer first", None),
        ("bearer  second ", None),
        ("Bearer firs", "invalid_api_key"),
        ("Bearer schlüssel", "invalid_api_key"),
        ("Bearer ", "missing_api_key"),
        ("Basic first", "missing_api_key"),
        ("first", "missing_api_key"),
        (None, "missing_api_key"),
    ],
)
def test_only_a_known_key_is_accepted(authorization: str | None, code: str | None) -> None:
    refused = refusal(("first", "second"), authorization)
    assert (refused.code if refused else None) == code


def test_without_keys_everyone_may_ask() -> None:
    assert refusal((), None) is None

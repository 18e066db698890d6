"""Which models jobs may tune, and where they are loaded from."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shared.errors import InputError
from shared.settings import ModelSettings

MODELS = ModelSettings(id="org/micro", path="models/micro", allowed=("org/other",))


def test_a_job_that_names_no_model_tunes_the_default() -> None:
    assert MODELS.base_of(None) == "org/micro"
    assert MODELS.base_of("org/micro") == "org/micro"
    assert MODELS.base_of("org/other") == "org/other"


def test_the_default_has_a_path_and_the_others_are_names_on_a_hub() -> None:
    assert MODELS.location_of("org/micro") == "models/micro"
    assert MODELS.location_of("org/other") == "org/other"


@pytest.mark.parametrize("ask", [MODELS.base_of, MODELS.location_of])
def test_a_model_that_is_not_allowed_is_refused_and_the_allowed_ones_are_named(ask: Callable[[str], str]) -> None:
    with pytest.raises(InputError, match=r"org/secret.*choose one of: org/micro, org/other") as caught:
        ask("org/secret")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")

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


def test_the_default_is_loaded_from_its_path() -> None:
    assert MODELS.location_of("org/micro") == "models/micro"
    assert ModelSettings(id="org/micro").location_of("org/micro") == "org/micro"


@pytest.mark.parametrize("ask", [MODELS.base_of, MODELS.location_of])
def test_only_the_base_that_is_served_can_be_tuned(ask: Callable[[str], str]) -> None:
    with pytest.raises(InputError, match=r"org/secret.*only org/micro.*TUNESTREAM_MODEL__ID=org/secret") as caught:
        ask("org/secret")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "ALLOWED" not in caught.value.message


@pytest.mark.parametrize("ask", [MODELS.base_of, MODELS.location_of])
def test_a_base_that_a_setting_allows_is_refused_too_since_its_model_could_not_be_evaluated(
    ask: Callable[[str], str],
) -> None:
    with pytest.raises(InputError, match=r"org/other.*only org/micro.*TUNESTREAM_MODEL__ALLOWED") as caught:
        ask("org/other")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")

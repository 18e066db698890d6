"""Ids are derived from what they name, so a later version must derive the same ids."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import ids
from shared.events import JobSpec


@pytest.mark.parametrize(
    ("settings", "unreadable", "expected"),
    [
        ({}, None, "ftjob-rvf3pjmzgnt5kdv2if4gp4mk"),
        ({"suffix": "é", "hyperparameters": {"n_epochs": 3}, "rerun": 1}, None, "ftjob-tcug5vamnhcon7qaka5cfsih"),
        ({}, "x", "ftjob-vpapza5jbhpteq6etunwtvxi"),
    ],
)
def test_a_job_keeps_the_id_that_earlier_versions_gave_it(
    settings: dict[str, Any], unreadable: str | None, expected: str
) -> None:
    spec = JobSpec.model_validate(settings)
    assert ids.job_id("datasets", "support.jsonl", "ab" * 32, spec, unreadable=unreadable) == expected


def test_a_default_that_is_written_out_changes_nothing() -> None:
    settings = {"seed": 0, "hyperparameters": {"n_epochs": "auto"}, "gate": {}, "lora": {"quantization": "auto"}}
    assert ids.chosen_settings(JobSpec.model_validate(settings)) == {}


PLACE = ("datasets", "support.jsonl", "ab" * 32)


@pytest.mark.parametrize("quantization", ["auto", "nf4", "none", "fp8"])
def test_a_quantization_that_is_set_is_another_job(quantization: str) -> None:
    spec = JobSpec.model_validate({"lora": {"quantization": quantization}})
    job = ids.job_id(*PLACE, spec)
    assert (job == ids.job_id(*PLACE, JobSpec())) == (quantization == "auto")
    assert ids.as_derived(job, *PLACE, spec) == spec


@pytest.mark.parametrize(
    "earlier",
    [
        {"lora": {"quantization": "nf4", "r": "auto"}},
        {"evaluation": {"concurrency": 16}},
        {"lora": {"quantization": "nf4"}, "evaluation": {"concurrency": 16}},
    ],
)
@pytest.mark.parametrize("settings", [{}, {"suffix": "é", "hyperparameters": {"n_epochs": 3}, "rerun": 1}])
def test_a_manifest_of_a_version_with_other_defaults_still_has_its_id(
    settings: dict[str, Any], earlier: dict[str, Any]
) -> None:
    job = ids.job_id(*PLACE, JobSpec.model_validate(settings))  # that of earlier versions, as the test above says
    written = JobSpec.model_validate({**settings, **earlier})
    assert ids.job_id(*PLACE, ids.as_derived(job, *PLACE, written)) == job
    assert ids.job_id(*PLACE, ids.as_derived("ftjob-other", *PLACE, written)) != "ftjob-other"


def test_what_was_set_beside_an_earlier_default_stays_set() -> None:
    written = JobSpec.model_validate({"lora": {"quantization": "nf4"}, "evaluation": {"concurrency": 16}})
    job = ids.job_id(*PLACE, JobSpec.model_validate({"lora": {"quantization": "nf4"}}))
    found = ids.as_derived(job, *PLACE, written)
    assert (found.lora.quantization, found.evaluation.concurrency) == ("nf4", "auto")


@given(st.text(max_size=80))
def test_what_is_made_an_alias_is_one_and_stays_the_same(text: str) -> None:
    alias = ids.alias_of(text)
    if alias:
        assert ids.is_alias(alias)
        assert JobSpec(alias=alias).alias == alias
        assert ids.alias_of(alias) == alias


@pytest.mark.parametrize("text", ["support", "support-tickets", "a.b_c-2", "x" * 64])
def test_an_alias_of_ascii_is_what_it_was(text: str) -> None:
    assert ids.alias_of(text) == ids.slug(text) == text

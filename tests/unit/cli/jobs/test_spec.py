"""The settings of a job from flags and a file."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cli.jobs.spec import build, to_yaml
from cli.terminal import CliError
from services.ingest.job_settings import parse_spec
from shared.events import JobSpec
from shared.ids import chosen_settings


def test_without_settings_all_are_defaults() -> None:
    spec = build(None, (), {"suffix": None})
    assert spec == JobSpec()
    assert chosen_settings(spec) == {}


def test_file_then_assignments_then_flags() -> None:
    document = "suffix: from-file\nhyperparameters:\n  n_epochs: 1\n  batch_size: 4\n"
    spec = build(document, ["hyperparameters.n_epochs=3", "lora.r=8", "seed=7"], {"suffix": "from-flag"})
    assert spec.suffix == "from-flag"
    assert spec.hyperparameters.n_epochs == 3
    assert spec.hyperparameters.batch_size == 4
    assert spec.lora.r == 8
    assert spec.seed == 7


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("hyperparameters.learning_rate=3e-3", 0.003),  # no number in YAML 1.1, but people write it
        ("hyperparameters.learning_rate=auto", "auto"),
        ("hyperparameters.learning_rate=0.5", 0.5),
    ],
)
def test_values_get_the_type_that_users_expect(assignment: str, value: object) -> None:
    assert build(None, [assignment], {}).hyperparameters.learning_rate == value


def test_lists_and_words_are_yaml() -> None:
    spec = build(None, ["lora.target_modules=[q_proj, v_proj]", "metadata.team=support"], {})
    assert spec.lora.target_modules == ("q_proj", "v_proj")
    assert spec.metadata == {"team": "support"}


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("hyperparameters.n_epoch=3", ["hyperparameters.n_epoch", "did you mean n_epochs?"]),
        ("hyperparameters.n_epochs=99", ["hyperparameters.n_epochs", "must be 'auto' or at most 50"]),
        ("colour=red", ["colour", "there is no such setting", "suffix"]),
        ("validation_file.buket=x", ["validation_file.bucket: is missing", "validation_file.key"]),
        ("splits.test=0.7", ["splits.test", "less than 0.5"]),
        ("gate.promote=maybe", ["gate.promote", "'if_better', 'always' or 'never'"]),
        ("hyperparameters=3", ["hyperparameters"]),
        ("metadata.team=[1]", ["metadata.team"]),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_may_be(assignment: str, words: list[str]) -> None:
    with pytest.raises(CliError) as caught:
        build(None, [assignment], {})
    for word in words:
        assert word in caught.value.message


def test_every_wrong_setting_is_named_at_once() -> None:
    with pytest.raises(CliError) as caught:
        build("seed: many\nsuffix: ''\n", ["lora.rank=8"], {})
    for name in ("seed", "suffix", "lora.rank"):
        assert name in caught.value.message


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("a: b: c", "in line 1: not YAML"),
        ("seed: 1\nseed: 2", "in line 2: seed: is set in line 1 already"),
        ("- suffix", "must be `name: value` lines"),
        ("just words", "must be `name: value` lines"),
    ],
)
def test_a_file_that_holds_no_settings_says_so(document: str, words: str) -> None:
    with pytest.raises(CliError, match=words):
        build(document, (), {})


@pytest.mark.parametrize(
    "assignment", ["n_epochs", "=3", "a=[", "seed.deep=1", "suffix=2024-31-12", "seed=" + "9" * 5000, "a=" + "[" * 5000]
)
def test_a_malformed_assignment_is_answered_with_the_right_form(assignment: str) -> None:
    with pytest.raises(CliError, match=r"--set"):
        build("seed: 1", [assignment], {})


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "suffix": st.text(min_size=1, max_size=64),
            "seed": st.integers(0, 2**31 - 1),
            "rerun": st.integers(0, 9),
            "metadata": st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
            "hyperparameters": st.fixed_dictionaries(
                {}, optional={"learning_rate": st.floats(1e-9, 1), "n_epochs": st.integers(1, 50)}
            ),
            "lora": st.fixed_dictionaries({}, optional={"target_modules": st.lists(st.text(max_size=5), max_size=3)}),
        },
    )
)
def test_ingest_reads_from_the_sidecar_what_the_user_wrote(values: dict[str, object]) -> None:
    """Otherwise `submit` would print an id that is not the job's."""
    spec = build(yaml.safe_dump(values, allow_unicode=True), (), {})
    assert parse_spec(to_yaml(spec), "here") == spec

"""The settings beside a dataset may hold anything: the answer is a spec, or an error that says what to correct."""

from __future__ import annotations

import json
import time

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.ingest.job_settings import MAX_BYTES, parse_spec
from shared import ids
from shared.errors import InputError
from shared.events import JobSpec

LAUGHS = "a: &a [lol]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{name}'] * 9)}]\n" for name, after in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{after}: &{after} {{<<: [{', '.join([f'*{name}'] * 9)}]}}\n"
    for name, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "field", "says"),
    [
        ("suffix: 2024-31-12", "suffix", "line 1: suffix"),
        ("seed: 1\nhyperparameters:\n  n_epochs: 2024-31-12", "hyperparameters.n_epochs", "line 3"),
        ("lora: {target_modules: [a, 2024-02-30]}", "lora.target_modules.1", "line 1"),
        ("2024-31-12: a", None, "line 1"),
        ("hyperparameters: {max_grad_norm: .inf}", "hyperparameters.max_grad_norm", "max_grad_norm"),
        ("gate: {min_delta: .nan}", "gate.min_delta", "min_delta"),
        ("gate: {min_delta: -.inf}", "gate.min_delta", "min_delta"),
        (f"seed: {'9' * 5000}", "seed", "line 1: seed"),
        (f"seed: 0x{'f' * 5000}", "seed", "seed"),
        (f"hyperparameters: {{max_length: 0x{'f' * 5000}}}", None, ""),
        ("[" * 50_000, None, "16 levels"),
        ("{a: " * 5_000, None, "16 levels"),
        ("- " * 5_000, None, "16 levels"),
        ("suffix: " + "[" * 17 + "]" * 17, None, "16 levels"),
        (LAUGHS, None, "line 2: aliases"),
        (MERGES, None, "line 2: aliases"),
        ("&a [*a]", None, "aliases"),
        ("suffix: !!int ''", "suffix", "line 1"),
        ("suffix: !!bool perhaps", "suffix", "line 1"),
        ("suffix: !!timestamp noon", "suffix", "line 1"),
        ("suffix: !!python/object/apply:os.system [id]", None, "line 1"),
        ("? [a]\n: b", None, "line 1"),
        ("? {a: b}\n: c", None, "line 1"),
        ("suffix: !!set {a, b}", "suffix", "suffix"),
        ("suffix: a\x00b", None, "not YAML"),
        ("--- a\n--- b", None, "line 2"),
        (
            "suffix: a\nn_epochs: 3",
            "n_epochs",
            "line 2, n_epochs: there is no such setting here; it belongs into hyper",
        ),
        ("lora:\n  rank: 8", "lora.rank", "line 2, lora.rank: there is no such setting; there are r, alpha"),
        (
            "hyperparameters:\n  n_epoch: 8",
            "hyperparameters.n_epoch",
            "line 2, hyperparameters.n_epoch: there is no such",
        ),
        ("hyperparameters: {n_epochs: three}", "hyperparameters.n_epochs", "must be 'auto' or a whole number."),
        ("suffix: yes", "suffix", "line 1, suffix: must be text."),
        ("seed: 1\nseed: 2", None, "line 2: seed: is set in line 1 already"),
        ("lora: {r: 8, r: 16}", None, "lora.r: is set in line 1 already"),
        ("validation_file: {key: x}", "validation_file.bucket", "line 1, validation_file.bucket: is missing"),
        ("0", None, "field: value"),
        ("[]", None, "field: value"),
        ('metadata: {a: "\\ud800"}', None, ""),
        ('validation_file: {bucket: b, key: "\\udfff"}', None, ""),
        ('"\\ud800": 1', None, "unicode"),
        ("x" * (MAX_BYTES + 1), None, "64 KiB"),
    ],
)
def test_what_is_wrong_is_named(text: str, field: str | None, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_spec(text.encode(), "a.job.yaml")
    assert caught.value.code == "invalid_job_settings"
    assert "a.job.yaml" in caught.value.message and says in caught.value.message
    assert field is None or (caught.value.param or "").startswith(field)


def test_a_message_is_short_whatever_the_text_holds() -> None:
    text = "\n".join(f"{'k' * 50}{number}: 1" for number in range(1000))
    with pytest.raises(InputError) as caught:
        parse_spec(text.encode(), "a.job.yaml")
    assert len(caught.value.message) < 2000
    assert caught.value.message.endswith("; and 995 more.")
    with pytest.raises(InputError) as caught:
        parse_spec(("k" * 60_000 + ": 1").encode(), "a.job.yaml")
    assert len(caught.value.message) + len(caught.value.param or "") < 2000


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(InputError, match="not YAML"):
        parse_spec(b"suffix: \xff\xfe", "a.job.yaml")


def test_anchors_without_aliases_do_no_harm_and_quotes_help() -> None:
    assert parse_spec(b"suffix: &name support", "x").suffix == "support"
    assert parse_spec(b"suffix: '2024-31-12'", "x").suffix == "2024-31-12"
    assert parse_spec(b"# nothing yet\n", "x") == JobSpec()


def spec_or_input_error(text: bytes) -> None:
    began = time.monotonic()
    try:
        spec = parse_spec(text, "a.job.yaml")
    except InputError as error:
        said = json.dumps([error.message, error.param])
        assert error.message and len(said) < 20_000
        said.encode()
    else:
        assert JobSpec.model_validate_json(spec.model_dump_json()) == spec
        assert ids.job_id("datasets", "a.jsonl", "0" * 64, spec)
    assert time.monotonic() - began < 10


NAMES = st.sampled_from(
    [
        "suffix",
        "alias",
        "seed",
        "hyperparameters",
        "n_epochs",
        "max_grad_norm",
        "lora",
        "r",
        "target_modules",
        "gate",
        "min_delta",
        "validation_file",
        "bucket",
        "key",
        "metadata",
        "rerun",
        "<<",
        "=",
        "model",
        "splits",
    ]
)
WORDS = st.sampled_from(
    [
        "2024-31-12",
        ".inf",
        "-.inf",
        ".nan",
        "1e999",
        "1:99:99",
        "0b2",
        "0o9",
        "~",
        "y",
        "!!int x",
        "!!float x",
        "!!bool x",
        "!!timestamp x",
        "!!binary x",
        "!!set {a}",
        "!!omap [a: 1]",
        "!!pairs [a]",
        "!!null x",
        "!!merge x",
        "!!value x",
        "!x y",
        "&a b",
        "*a",
        "<<",
        "=",
        "2024-01-01T99:99:99Z",
        "'\\ud800'",
        '"\\ud800"',
        '"\\U0010ffff"',
        "? a",
        "- a",
        "|",
        ">",
        "%",
        "@",
        "`",
        "{",
        "[",
        "]",
        "}",
        "#",
        "9" * 5000,
        "0x" + "f" * 4000,
        "\t",
    ]
)
VALUES = st.recursive(
    WORDS | st.text(max_size=8) | st.integers().map(str) | st.floats().map(str),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(NAMES | WORDS, inner), max_size=3).map(
            lambda pairs: "{" + ", ".join(f"{name}: {value}" for name, value in pairs) + "}"
        )
    ),
    max_leaves=8,
)
DOCUMENTS = st.lists(st.tuples(NAMES, VALUES), max_size=4).map(
    lambda pairs: "\n".join(f"{name}: {value}" for name, value in pairs).encode("utf-8", "surrogatepass")
)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=400) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"\xef\xbb\xbfsuffix: a")
@example(b"")
def test_any_bytes_are_a_spec_or_an_input_error(text: bytes) -> None:
    spec_or_input_error(text)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(DOCUMENTS)
def test_anything_that_looks_like_settings_is_a_spec_or_an_input_error(text: bytes) -> None:
    spec_or_input_error(text)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(TREES, st.sampled_from(["yaml", "json"]))
def test_any_values_are_a_spec_or_an_input_error(values: object, form: str) -> None:
    text = yaml.safe_dump(values) if form == "yaml" else json.dumps(values, default=str)
    spec_or_input_error(text.encode("utf-8", "surrogatepass"))

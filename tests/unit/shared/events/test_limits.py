"""No event and no settings of a job hold what cannot be written as JSON and read back; and nothing in them is without a
limit. What is refused names its field."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared import strict_json
from shared.events import (
    EVENTS,
    Claim,
    DatasetPointer,
    DatasetUploaded,
    EventRecord,
    InferenceFeedback,
    InferenceLogged,
    JobFailed,
    JobProgress,
    JobSpec,
    Origin,
    Reference,
    TrainingCompleted,
)
from shared.events.limits import TEXT_CHARS

DIGITS = int("9" * 4000)


def refused(model: Any, value: Any) -> str:
    """The error of a model about a value: field and reason of each problem."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(value)
    return "; ".join(
        f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in caught.value.errors(include_input=False)
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hyperparameters.learning_rate_multiplier", math.inf),
        ("hyperparameters.learning_rate_multiplier", 1e300),
        ("hyperparameters.weight_decay", math.inf),
        ("hyperparameters.max_grad_norm", math.inf),
        ("hyperparameters.max_grad_norm", math.nan),
        ("hyperparameters.max_grad_norm", ".inf"),
        ("hyperparameters.max_grad_norm", "1e999"),
        ("hyperparameters.max_length", DIGITS),
        ("hyperparameters.n_epochs", DIGITS),
        ("hyperparameters.early_stopping_patience", DIGITS),
        ("lora.alpha", DIGITS),
        ("lora.use_rslora", DIGITS),
        ("lora.use_rslora", "\ud800"),
        ("lora.target_modules", ["q_proj"] * 1000),
        ("lora.target_modules", ["q" * 1000]),
        ("lora.target_modules", ["\ud800"]),
        ("evaluation.max_examples", DIGITS),
        ("evaluation.max_tokens", DIGITS),
        ("gate.min_delta", -math.inf),
        ("gate.min_delta", math.nan),
        ("rerun", DIGITS),
        ("rerun", "9" * 5000),
        ("seed", DIGITS),
        ("suffix", "\ud800"),
        ("suffix", "x" * 65),
        ("model", "m" * 5000),
        ("model", "\udfff"),
        ("metadata", {"k" * 65: "v"}),
        ("metadata", {"k": "v" * 513}),
        ("metadata", {"k": "\ud800"}),
        ("metadata", {"\ud800": "v"}),
        ("metadata", {f"k{number}": "v" for number in range(17)}),
    ],
)
def test_settings_that_no_reader_could_take_are_refused_by_their_field(field: str, value: Any) -> None:
    first, _, rest = field.partition(".")
    assert refused(JobSpec, {first: {rest: value} if rest else value}).startswith(field)


@pytest.mark.parametrize(
    "bucket",
    ["", "b", "ab", "x" * 64, "a b", "s3://datasets", "a/b", "..", "a..b", "-ab", "ab-", "192.168.0.1", "é" * 5],
)
def test_a_bucket_that_is_no_bucket_name_is_refused_with_a_remedy(bucket: str) -> None:
    text = refused(DatasetUploaded, {"dataset": {"bucket": bucket, "key": "k"}})
    assert text.startswith("dataset.bucket: ") and "3 to 63" in text


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("", "empty"),
        ("  ", "empty"),
        (".", "folder"),
        ("a/../b.jsonl", "folder"),
        ("../b.jsonl", "folder"),
        ("a/./b.jsonl", "folder"),
        ("k" * 1025, "1024 bytes"),
        ("é" * 513, "1024 bytes in UTF-8, this one has 1026"),
        ("a\x00b", "control character"),
        ("\ud800", "string"),
    ],
)
def test_a_key_that_no_client_can_ask_for_is_refused_with_a_remedy(key: str, said: str) -> None:
    text = refused(JobSpec, {"validation_file": {"bucket": "datasets", "key": key}})
    assert text.startswith("validation_file.key: ") and said in text


@pytest.mark.parametrize("bucket", ["abc", "my-data.eu-1", "Old_Bucket", "x" * 63])
@pytest.mark.parametrize("key", ["k", "a//b.jsonl", "/a", "..a/b..", "ünï/日本.jsonl", "k" * 1024, "a b+c%2F"])
def test_places_that_exist_are_taken(bucket: str, key: str) -> None:
    assert DatasetPointer(bucket=bucket, key=key).key == key


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", -1), ("size", DIGITS), ("sha256", "xyz"), ("sha256", "0" * 65), ("etag", "e" * 1000), ("etag", "\ud800")],
)
def test_what_describes_a_dataset_has_limits(field: str, value: Any) -> None:
    text = refused(DatasetUploaded, {"dataset": {"bucket": "datasets", "key": "k", field: value}})
    assert text.startswith(f"dataset.{field}: ")


def test_a_digest_in_upper_case_is_the_same_digest() -> None:
    assert DatasetPointer(bucket="datasets", key="k", sha256="AB" * 32).sha256 == "ab" * 32


@pytest.mark.parametrize("odd", [math.nan, math.inf, DIGITS, "\ud800", {"\ud800": 1}, [[math.nan]], 10**30])
def test_free_values_of_events_can_be_written_and_read_back(odd: Any) -> None:
    assert refused(JobProgress, {"job_id": "j", "stage": "s", "state": "r", "data": {"x": odd}}).startswith("data: x")
    assert "data" in refused(EventRecord, {"topic": "t", "type": "t", "id": "i", "data": {"x": odd}})
    logged = {"request_id": "r", "model": "m", "route": "/", "status": 200, "latency_seconds": 1.0}
    assert "request" in refused(InferenceLogged, logged | {"request": {"x": odd}})


def test_a_value_nested_too_deeply_is_refused_without_an_error_of_another_kind() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    assert "nested" in refused(JobProgress, {"job_id": "j", "stage": "s", "state": "r", "data": {"x": deep}})


def test_documents_hold_only_finite_times() -> None:
    assert "expires" in refused(Claim, {"owner": "o", "attempt": 1, "expires": math.inf})


def test_words_for_people_are_cut_and_made_writable() -> None:
    failed = JobFailed(job_id="j", stage="ingest", code="c", message="m" * 100_000, param="\ud800" + "p" * 100_000)
    assert len(failed.message) == TEXT_CHARS and failed.message.endswith("…")
    assert failed.param is not None and failed.param.startswith(r"\ud800")
    assert JobFailed.model_validate_json(failed.model_dump_json()) == failed
    assert len(Origin(source="s" * 10**6).source) == 1024
    assert JobFailed(job_id="j", stage="s", code="c", message="\ud800" * TEXT_CHARS).model_dump_json()


@pytest.mark.parametrize("job_id", ["", "..", "a/b", "../x", "j" * 129, "a b", "ü", "\ud800", "a\n"])
def test_a_job_id_that_is_no_folder_of_the_ledger_is_refused(job_id: str) -> None:
    event = {"job_id": job_id, "stage": "trainer", "state": "running"}
    assert refused(JobProgress, event).startswith("job_id: ")


def test_feedback_has_limits() -> None:
    event = {"request_id": "r", "rating": "up"}
    assert refused(InferenceFeedback, event | {"request_id": "r" * 10_000}).startswith("request_id")
    assert refused(InferenceFeedback, event | {"comment": 3}).startswith("comment")
    assert InferenceFeedback.model_validate(event | {"comment": "c" * 10**6}).comment is not None


def test_losses_are_finite() -> None:
    assert TrainingCompleted.model_fields["train_loss"].annotation is float
    reference = Reference(bucket="b", key="k", etag="e", size=1, sha256="0")
    with pytest.raises(ValidationError, match="train_loss"):
        TrainingCompleted(
            job_id="j",
            model="m",
            base="b",
            adapter={"bucket": "b", "prefix": "p", "manifest": reference},  # type: ignore[arg-type]
            rank=1,
            steps=1,
            epochs=1,
            trained_tokens=1,
            train_loss=math.nan,
            overfitting={"verdict": "healthy", "reason": ""},  # type: ignore[arg-type]
        )


def unlimited(schema: Any, path: str = "") -> list[str]:
    """The places of a JSON Schema that hold a string, a list, an object of any names or a whole number without a
    limit."""
    found: list[str] = []
    if isinstance(schema, dict):
        needs = {"string": "maxLength", "array": "maxItems", "integer": "maximum"}
        kind = schema.get("type")
        if isinstance(kind, str) and kind in needs and not {"enum", "const", "pattern", needs[kind]} & schema.keys():
            found.append(path)
        if (
            kind == "object"
            and schema.get("additionalProperties") not in (None, False)
            and "maxProperties" not in schema
        ):
            found.append(path)
        for name, value in schema.items():
            found += unlimited(value, f"{path}.{name}") if name not in ("default", "examples", "propertyNames") else []
    elif isinstance(schema, list):
        for value in schema:
            found += unlimited(value, path)
    return found


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.topic)
def test_everything_in_an_event_has_a_limit(event: Any) -> None:
    assert unlimited(event.model_json_schema()) == []


def test_a_limit_that_is_missing_is_found() -> None:
    assert unlimited({"properties": {"a": {"type": "string"}, "b": {"type": "string", "maxLength": 3}}}) == [
        ".properties.a"
    ]
    assert unlimited({"type": "object", "additionalProperties": True}) == [""]


# --- whatever is sent -------------------------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None))
    | st.sampled_from([DIGITS, "\ud800", "auto", "all-linear", "datasets", "k.jsonl", "9" * 5000, 1e308])
)
FIELDS = st.sampled_from(
    sorted(
        {name for model in (DatasetUploaded, JobSpec, DatasetPointer, Origin) for name in model.model_fields}
        | {
            name
            for field in JobSpec.model_fields.values()
            for model in (field.annotation, *get_args(field.annotation))
            if hasattr(model, "model_fields")
            for name in model.model_fields
        }
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS | st.text(), inner, max_size=4),
    max_leaves=15,
)
OBJECTS = st.dictionaries(FIELDS, VALUES, max_size=5)


@given(OBJECTS)
def test_settings_are_refused_or_can_be_written_and_read_back(value: dict[str, Any]) -> None:
    try:
        spec = JobSpec.model_validate(value)
    except ValidationError as error:
        assert error.errors(include_input=False)
    else:
        written = spec.model_dump_json()
        assert JobSpec.model_validate(strict_json.loads(written)) == spec


@given(st.sampled_from(EVENTS), OBJECTS, st.data())
def test_events_are_refused_or_can_be_written_and_read_back(event: Any, value: dict[str, Any], data: Any) -> None:
    needed = {name: data.draw(VALUES) for name, field in event.model_fields.items() if field.is_required()}
    if event is DatasetUploaded:
        needed["dataset"] = {"bucket": "datasets", "key": data.draw(st.text(st.characters(codec=None)))}
    try:
        sent = event.model_validate(value | needed)
    except ValidationError as error:
        assert error.errors(include_input=False)
    else:
        assert event.model_validate(strict_json.loads(sent.model_dump_json())) == sent
        record = EventRecord.of(sent, "ftevent-a")
        assert EventRecord.model_validate_json(record.model_dump_json()) == record
        json.dumps(record.model_dump(mode="json"), allow_nan=False, ensure_ascii=False).encode()

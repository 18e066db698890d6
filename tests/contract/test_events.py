"""What other systems rely on: the generated documents are up to date, and events of older versions stay readable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from docs.generate import HERE, documents
from services.api import app as api
from shared.events import BY_TOPIC, EVENTS, DatasetUploaded, JobControl, JobSpec
from shared.stages.stage import STAGES

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", sorted(documents()))
def test_the_documents_say_what_the_code_says(name: str) -> None:
    assert (HERE / name).read_text() == documents()[name], "run `make docs` and commit what it writes"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_events_of_every_released_version_stay_readable(path: Path) -> None:
    topic, _, version = path.stem.rpartition(".")
    assert version == "v1"
    written = json.loads(path.read_text())
    read = BY_TOPIC[topic].model_validate({**written, "a_field_of_the_future": 1})
    assert read.model_dump(mode="json", exclude_unset=True) == written


def test_older_services_can_read_what_nobody_set() -> None:
    """They know `nf4` and `none` only, and refuse a whole event for another word."""
    spec = JobSpec.model_validate({"lora": {"r": 8}})
    assert spec.lora.quantization == "auto"
    assert "quantization" not in spec.model_dump(mode="json")["lora"]
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec
    for known in ("nf4", "none"):
        asked = JobSpec.model_validate({"lora": {"quantization": known}})
        assert asked.model_dump(mode="json")["lora"]["quantization"] == known


def test_there_is_a_golden_file_of_every_event() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == {f"{event.topic}.v1" for event in EVENTS}


def test_an_event_of_a_stranger_needs_only_the_place_of_the_dataset() -> None:
    event = DatasetUploaded.model_validate({"dataset": {"bucket": "datasets", "key": "k.jsonl"}})
    assert event.job_id is None and event.spec is None


def test_events_cannot_be_changed_and_errors_quote_no_data() -> None:
    event = DatasetUploaded.model_validate({"dataset": {"bucket": "datasets", "key": "k"}})
    with pytest.raises(ValidationError):
        event.job_id = "x"  # type: ignore[misc]
    with pytest.raises(ValidationError) as caught:
        DatasetUploaded.model_validate({"dataset": {"bucket": ["secret-canary"], "key": "k"}})
    assert "secret-canary" not in str(caught.value)


def test_a_misspelt_setting_is_an_error_not_a_default() -> None:
    with pytest.raises(ValidationError, match="n_epoch"):
        JobSpec.model_validate({"hyperparameters": {"n_epoch": 3}})


@pytest.mark.parametrize(
    ("topic", "field", "word"),
    [
        ("job.progress", "state", "waiting"),
        ("job.progress", "stage", "synthesis"),
        ("job.failed", "stage", "synthesis"),
    ],
)
def test_readers_take_a_state_or_stage_of_a_later_version(topic: str, field: str, word: str) -> None:
    written = json.loads((GOLDEN / f"{topic}.v1.json").read_text()) | {field: word}
    read = BY_TOPIC[topic].model_validate(written)
    assert read.model_dump(mode="json", exclude_unset=True) == written


def test_every_reader_of_a_topic_subscribes_to_it() -> None:
    for stage in STAGES.values():
        assert stage.name in stage.asked_by.read_by and stage.name in JobControl.read_by
    assert {event for event in EVENTS if "api" in event.read_by} == set(api.TOPICS)

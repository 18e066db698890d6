"""The strangers' examples speak only S3, Kafka and HTTP, and say what the house understands."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from examples import ask, drop_s3, publish_event
from shared.events import DatasetUploaded


class FakeS3:
    def __init__(self) -> None:
        self.uploads: list[tuple[str, str, str]] = []

    def upload_file(self, path: str, bucket: str, key: str) -> None:
        self.uploads.append((Path(path).name, bucket, key))


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> FakeS3:
    fake = FakeS3()
    monkeypatch.setattr("boto3.client", lambda *_, **__: fake)
    return fake


def run(monkeypatch: pytest.MonkeyPatch, script: Any, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [script.__name__, *arguments])
    script.main()


@pytest.mark.parametrize("script", [ask, drop_s3, publish_event], ids=lambda script: script.__name__)
def test_strangers_import_nothing_of_ours(script: Any):
    tree = ast.parse(Path(script.__file__).read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not imported & {"shared", "services", "cli", "examples"}


def test_a_drop_puts_the_settings_there_before_the_dataset(monkeypatch: pytest.MonkeyPatch, s3: FakeS3):
    run(monkeypatch, drop_s3, "some/rows.jsonl", "--job", "mine.yaml", "--key", "team/faq.jsonl")
    assert s3.uploads == [
        ("mine.yaml", "datasets", "team/faq.job.yaml"),
        ("rows.jsonl", "datasets", "team/faq.jsonl"),
    ]


def test_a_published_event_is_bare_json_that_the_house_can_read(monkeypatch: pytest.MonkeyPatch, s3: FakeS3):
    sent: list[tuple[str, bytes]] = []

    class Producer:
        def __init__(self, **options: Any) -> None:
            assert options["bootstrap_servers"] == "broker:9092"
            assert not options.get("enable_idempotence")

        async def start(self) -> None: ...

        async def stop(self) -> None: ...

        async def send_and_wait(self, topic: str, value: bytes) -> None:
            assert s3.uploads, "the object comes before the event that names it"
            sent.append((topic, value))

    monkeypatch.setattr(publish_event, "AIOKafkaProducer", Producer)
    monkeypatch.setenv("TUNESTREAM_KAFKA", "broker:9092")
    run(monkeypatch, publish_event, "rows.jsonl", "--spec", '{"suffix": "helpdesk"}')
    ((topic, value),) = sent
    event = DatasetUploaded.model_validate_json(value)
    assert topic == DatasetUploaded.topic
    assert (event.dataset.bucket, event.dataset.key) == s3.uploads[0][1:]
    assert event.spec is not None
    assert event.spec.suffix == "helpdesk"
    assert set(json.loads(value)) == {"dataset", "spec"}


def test_ask_prints_the_answer_of_the_named_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    asked: dict[str, Any] = {}

    def create(**options: Any) -> list[Any]:
        asked.update(options)
        pieces = ["Hello", " Priya", None]
        return [SimpleNamespace(choices=[SimpleNamespace(delta=SimpleNamespace(content=piece))]) for piece in pieces]

    client = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))
    monkeypatch.setattr(ask, "OpenAI", lambda **_: client)
    run(monkeypatch, ask, "support", "Where is it?", "--system", "Be kind.")
    assert capsys.readouterr().out == "Hello Priya\n"
    assert asked["model"] == "support"
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]

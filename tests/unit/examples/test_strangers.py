"""The examples for other programs use only S3, Kafka and HTTP, and send what Tunestream accepts."""

from __future__ import annotations

import ast
import json
import os
import ssl
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from openai.types.chat import ChatCompletionChunk

from examples import ask, drop_s3, publish_event
from examples.tasks import tools
from shared.events import DatasetUploaded
from tests.support.environment import remove_settings

LOGIN = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_USERNAME": "stranger",
    "KAFKA_PASSWORD": "it's $ecret",
}
KCAT = """#!/bin/bash
printf '%s\\n' "$@" > {folder}/arguments
while [ "$1" != -F ]; do shift; done
cat "$2" > {folder}/configuration
cat > {folder}/input
"""


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


def test_a_published_event_is_bare_json_that_ingest_can_read(monkeypatch: pytest.MonkeyPatch, s3: FakeS3):
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
    monkeypatch.delenv("KAFKA_SECURITY_PROTOCOL", raising=False)
    run(monkeypatch, publish_event, "rows.jsonl", "--spec", '{"suffix": "helpdesk"}')
    ((topic, value),) = sent
    event = DatasetUploaded.model_validate_json(value)
    assert topic == DatasetUploaded.topic
    assert (event.dataset.bucket, event.dataset.key) == s3.uploads[0][1:]
    assert event.spec is not None
    assert event.spec.suffix == "helpdesk"
    assert set(json.loads(value)) == {"dataset", "spec"}


def test_the_variables_of_the_environment_log_in(monkeypatch: pytest.MonkeyPatch):
    remove_settings(monkeypatch, ("KAFKA_",))
    assert publish_event.login() == {"security_protocol": "PLAINTEXT"}
    for name, value in LOGIN.items():
        monkeypatch.setenv(name, value)
    options = publish_event.login()
    assert options.pop("ssl_context").verify_mode is ssl.CERT_REQUIRED
    assert options == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "stranger",
        "sasl_plain_password": "it's $ecret",
    }


@pytest.fixture
def kcat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a fake `kcat` leaves its arguments, its configuration and its input."""
    program = tmp_path / "kcat"
    program.write_text(KCAT.format(folder=tmp_path))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    remove_settings(monkeypatch, ("KAFKA_", "TUNESTREAM_"))
    return tmp_path


def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = Path(publish_event.__file__).with_suffix(".sh")
    return subprocess.run([str(script), *arguments], text=True, capture_output=True, check=False)


def test_kcat_sends_a_bare_event_whatever_the_key_looks_like(kcat: Path):
    assert shell("datasets", '_a/odd "na\\me" ü.jsonl').returncode == 0
    event = DatasetUploaded.model_validate_json((kcat / "input").read_text())
    assert (event.dataset.bucket, event.dataset.key) == ("datasets", '_a/odd "na\\me" ü.jsonl')
    assert (kcat / "configuration").read_text() == "security.protocol=PLAINTEXT\n"
    arguments = (kcat / "arguments").read_text().splitlines()
    assert "127.0.0.1:9092" in arguments and "dataset.uploaded" in arguments and "-H" not in arguments


def test_kcat_sends_headers_and_logs_in_without_showing_the_password(kcat: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in LOGIN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KAFKA_CA_FILE", "/ca.pem")
    assert shell("-i", "order-1", "-t", "00-aa-bb-01", "datasets", "a.jsonl").returncode == 0
    arguments = (kcat / "arguments").read_text().splitlines()
    assert {"ce_id=order-1", "ce_specversion=1.0", "traceparent=00-aa-bb-01"} <= set(arguments)
    assert f"ce_type={DatasetUploaded.ce_type()}" in arguments
    assert not any("ecret" in argument for argument in arguments)
    assert (kcat / "configuration").read_text().splitlines() == [
        "security.protocol=SASL_SSL",
        "sasl.mechanism=SCRAM-SHA-512",
        "sasl.username=stranger",
        "sasl.password=it's $ecret",
        "ssl.ca.location=/ca.pem",
    ]


def test_kcat_without_a_key_prints_its_usage(kcat: Path):
    result = shell("datasets")
    assert result.returncode == 2 and "BUCKET KEY" in result.stderr
    assert not (kcat / "input").exists()


def asked_with(monkeypatch: pytest.MonkeyPatch, *deltas: dict[str, Any]) -> dict[str, Any]:
    """What the client is asked for, which answers with these pieces."""
    asked: dict[str, Any] = {}

    def create(**options: Any) -> list[Any]:
        asked.update(options)
        chunks = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        about = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m"}
        return [ChatCompletionChunk.model_validate({**about, "choices": [chunk]}) for chunk in chunks]

    client = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))
    monkeypatch.setattr(ask, "OpenAI", lambda **_: client)
    return asked


def test_ask_prints_the_answer_of_the_named_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    asked = asked_with(monkeypatch, {"content": "Hello"}, {"content": " Priya"}, {"content": None})
    run(monkeypatch, ask, "support", "Where is it?", "--system", "Be kind.")
    assert capsys.readouterr().out == "Hello Priya\n"
    assert asked["model"] == "support"
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]


def test_ask_offers_the_tools_of_a_dataset_and_prints_the_calls(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def part(index: int, **function: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": index, "function": function}]}

    first, second = part(0, name="order_status", arguments=""), part(1, name="gift_card", arguments="{}")
    asked = asked_with(
        monkeypatch, first, part(0, arguments='{"order": '), part(0, arguments="48213}"), second, {"content": None}
    )
    run(monkeypatch, ask, "desk", "Where is order 48213?", "--tools", str(tools.PATH))
    assert capsys.readouterr().out == 'order_status {"order": 48213}\ngift_card {}\n'
    assert asked["tools"] == list(tools.TOOLS)

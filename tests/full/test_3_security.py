"""Nobody can do more than `deploy/stack.yaml` gives them, and a service that is refused says why in one line."""

from __future__ import annotations

import json
import os
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition

from deploy.init import plan
from shared.events import RUNNER_STAGES, SERVICES, STAGE_NAMES
from tests.full.conftest import FullStack
from tests.support.certificates import Authority, server_context
from tests.support.environment import without_settings
from tests.support.user import ROOT

pytestmark = pytest.mark.timeout(600, func_only=True)

TOPICS = sorted(plan.topics(plan.load(ROOT / "deploy" / "stack.yaml").kafka))
# for each service, a key in the ledger that only this service may write
OWN = {
    "ingest": "jobs/ftjob-x/ingest/probe.json",
    "validate": "jobs/ftjob-x/validate/probe.json",
    "trainer": "jobs/ftjob-x/trainer/probe.json",
    "evaluator": "jobs/ftjob-x/evaluator/probe.json",
    "inference": "jobs/ftjob-x/inference/probe.json",
    "api": "jobs/ftjob-x/control/probe.json",
}


def denied(call: Any) -> None:
    with pytest.raises(ClientError) as raised:
        call()
    assert raised.value.response["Error"]["Code"] == "AccessDenied"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_writes_only_its_own_rows_of_the_ledger_and_deletes_none(stack: FullStack, service: str) -> None:
    s3 = stack.s3_of(service)
    s3.put_object(Bucket="tunestream", Key=OWN[service], Body=b"{}")
    for other in set(SERVICES) - {service}:
        denied(lambda key=OWN[other]: s3.put_object(Bucket="tunestream", Key=key, Body=b"{}"))
    if service != "ingest":  # it writes what a synthesis has made
        denied(lambda: s3.put_object(Bucket="datasets", Key="planted.jsonl", Body=b"{}"))
    denied(lambda: s3.delete_object(Bucket="tunestream", Key=OWN[service]))


# what the janitor deletes: folders of attempts, what ingest has handled, deliveries of webhooks
RUBBISH = (
    "jobs/ftjob-x/trainer/attempt-1/resume/step-1/manifest.json",
    "jobs/ftjob-x/evaluator/attempt-1/answers-tuned.jsonl",
    "deleted/checkpoints/probe.json",
    "deleted/files/probe.json",
    "files/file-probe/content",
    "files/file-probe/meta.json",
    "uploads/upload_probe/parts/part_probe/content",
    "deleted/models/probe.json",
    "jobs/ftjob-x/trainer/attempt-1/adapter/manifest.json",
    "ingest/inbox/probe",
    "ingest/seen/probe",
    "ingest/retries/ftjob-x.json",
    "ingest/asked/ftjob-x.json",
    "quarantine/drop/probe.json",
    "webhooks/deliveries/whe_x/evt_x.json",
)
# what nobody deletes
KEPT = (
    "jobs/ftjob-x/job.json",
    *(f"jobs/ftjob-x/{stage}/{name}.json" for stage in STAGE_NAMES for name in ("claim", "result", "published")),
    "deployments/probe.json",
    "deployments/project/probe.json",
    "permissions/ftjob-x/cp_probe.json",
    "bases/probe.json",
    "gpu/probe/turn.json",
    "janitor/claim.json",
    "webhooks/claim.json",
    "webhooks/endpoints/whe_x.json",
)


def _deletes(stack: FullStack, user: str, bucket: str, key: str) -> bool:
    stack.s3_of("admin").put_object(Bucket=bucket, Key=key, Body=b"{}")
    try:
        stack.s3_of(user).delete_object(Bucket=bucket, Key=key)
    except ClientError as error:
        assert error.response["Error"]["Code"] == "AccessDenied"
        return False
    return True


@pytest.mark.parametrize("user", [*SERVICES, "render", "stranger", "janitor"])
def test_only_the_janitor_deletes_beside_each_stages_own_entries_of_open_work(stack: FullStack, user: str) -> None:
    entries = {stage: f"pending/{stage}/0000000001.000-ftjob-x" for stage in RUNNER_STAGES}
    deleted = {key for key in (*RUBBISH, *KEPT, *entries.values()) if _deletes(stack, user, "tunestream", key)}
    own = {entries[user]} if user in entries else set()
    assert deleted == (set(RUBBISH) if user == "janitor" else own)
    assert not _deletes(stack, user, "datasets", "probe.txt")


@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_a_stage_writes_its_own_part_of_the_index_and_that_of_the_next(stack: FullStack, stage: str) -> None:
    s3 = stack.s3_of(stage)
    following = STAGE_NAMES[STAGE_NAMES.index(stage) :][1:2]
    for other in RUNNER_STAGES:
        put = {"Bucket": "tunestream", "Key": f"pending/{other}/0000000002.000-ftjob-x", "Body": b"{}"}
        if other == stage or other in following:
            s3.put_object(**put)
        else:
            denied(lambda put=put: s3.put_object(**put))
    if stage == "ingest":
        return  # it has no part of the index: its markers tell it what is not published
    listed = s3.list_objects_v2(Bucket="tunestream", Prefix=f"pending/{stage}/")["Contents"]
    assert f"pending/{stage}/0000000002.000-ftjob-x" in [entry["Key"] for entry in listed]


def test_the_secrets_of_webhooks_are_read_by_the_api_alone(stack: FullStack) -> None:
    key = {"Bucket": "tunestream", "Key": "webhooks/endpoints/whe_y.json"}
    stack.s3_of("api").put_object(**key, Body=b"{}")
    assert stack.s3_of("api").get_object(**key)["Body"].read() == b"{}"
    for other in {*SERVICES, "render", "stranger", "janitor"} - {"api"}:
        denied(lambda other=other: stack.s3_of(other).get_object(**key))


def test_a_trainer_asks_for_a_deletion_and_nobody_else(stack: FullStack) -> None:
    put = {"Bucket": "tunestream", "Key": "deleted/checkpoints/asked.json", "Body": b"{}"}
    stack.s3_of("trainer").put_object(**put)
    assert stack.s3_of("trainer").get_object(Bucket="tunestream", Key=put["Key"])["Body"].read() == b"{}"
    for other in {*SERVICES, "render", "stranger", "janitor"} - {"trainer"}:
        denied(lambda other=other: stack.s3_of(other).put_object(**put))


def test_the_api_stores_files_and_asks_for_their_deletion_and_nobody_else(stack: FullStack) -> None:
    for key in ("files/file-x/content", "uploads/upload_x/upload.json", "deleted/files/asked.json"):
        put = {"Bucket": "tunestream", "Key": key, "Body": b"{}"}
        stack.s3_of("api").put_object(**put)
        for other in {*SERVICES, "render", "stranger", "janitor"} - {"api"}:
            denied(lambda other=other, put=put: stack.s3_of(other).put_object(**put))
    about = {"Bucket": "tunestream", "Key": "files/file-x/content"}
    upload = stack.s3_of("api").create_multipart_upload(**about)["UploadId"]
    stack.s3_of("api").abort_multipart_upload(**about, UploadId=upload)


@pytest.mark.parametrize(
    ("writer", "key"),
    [("inference", "deleted/models/asked.json"), ("api", "permissions/ftjob-x/cp_asked.json")],
)
def test_who_deletes_and_who_shares_models_is_one_service_each(stack: FullStack, writer: str, key: str) -> None:
    put = {"Bucket": "tunestream", "Key": key, "Body": b"{}"}
    stack.s3_of(writer).put_object(**put)
    for reader in ("inference", "api", "ingest"):
        assert _reads(stack, reader, key)
    for other in {*SERVICES, "render", "stranger", "janitor"} - {writer}:
        denied(lambda other=other: stack.s3_of(other).put_object(**put))


def test_the_render_server_writes_only_what_is_known_of_a_base_as_validate_does(stack: FullStack) -> None:
    s3, key = stack.s3_of("render"), "bases/probe.json"
    s3.put_object(Bucket="tunestream", Key=key, Body=b"{}")
    stack.s3_of("validate").put_object(Bucket="tunestream", Key=key, Body=b"{}")
    for service in set(SERVICES) - {"validate"}:
        denied(lambda service=service: stack.s3_of(service).put_object(Bucket="tunestream", Key=key, Body=b"{}"))
    for other in OWN.values():
        denied(lambda other=other: s3.put_object(Bucket="tunestream", Key=other, Body=b"{}"))
    denied(lambda: s3.put_object(Bucket="datasets", Key="planted.jsonl", Body=b"{}"))
    denied(lambda: s3.list_objects_v2(Bucket="datasets"))
    denied(lambda: s3.delete_object(Bucket="tunestream", Key=key))


def test_only_validate_reaches_the_render_server(stack: FullStack) -> None:
    ask = ["-c", "import httpx; print(httpx.get('http://render:8001/health', timeout=10).status_code)"]
    assert stack.compose("exec", "validate", "python", *ask).stdout.split() == ["200"]
    assert stack.compose("exec", "ingest", "python", *ask, check=False).returncode != 0
    assert stack.inspect("render")["NetworkSettings"]["Ports"] == {}


def test_a_service_reads_only_what_its_stage_needs(stack: FullStack) -> None:
    admin = stack.s3_of("admin")
    base, keys = "bases/probe.json", (*OWN.values(), "deployments/probe.json", "bases/probe.json")
    for key in keys:
        admin.put_object(Bucket="tunestream", Key=key, Body=b"{}")
    readable = {service: {key for key in keys if _reads(stack, service, key)} for service in (*SERVICES, "render")}
    assert readable == {
        "ingest": {OWN["ingest"]},
        "validate": {OWN["validate"], OWN["api"], base},
        "trainer": {OWN["validate"], OWN["trainer"], OWN["api"], base},
        "evaluator": {OWN["validate"], OWN["trainer"], OWN["evaluator"], OWN["api"], base},
        "inference": {OWN["trainer"], OWN["inference"], OWN["api"], "deployments/probe.json", base},
        "api": {*OWN.values(), base},
        "render": {base},
    }


def _reads(stack: FullStack, service: str, key: str) -> bool:
    try:
        stack.s3_of(service).get_object(Bucket="tunestream", Key=key)
    except ClientError as error:
        assert error.response["Error"]["Code"] == "AccessDenied"
        return False
    return True


def test_a_user_who_drops_datasets_cannot_read_the_ledger(stack: FullStack) -> None:
    denied(lambda: stack.s3.list_objects_v2(Bucket="tunestream"))
    denied(lambda: stack.s3.get_object(Bucket="tunestream", Key=OWN["api"]))


def test_ingest_writes_the_quarantine_and_who_drops_datasets_reads_it(stack: FullStack) -> None:
    key = "quarantine/drop/probe.json"
    stack.s3_of("ingest").put_object(Bucket="tunestream", Key=key, Body=b"{}")
    for service in set(SERVICES) - {"ingest"}:
        denied(lambda service=service: stack.s3_of(service).put_object(Bucket="tunestream", Key=key, Body=b"{}"))
    denied(lambda: stack.s3.put_object(Bucket="tunestream", Key=key, Body=b"{}"))
    assert stack.s3.get_object(Bucket="tunestream", Key=key)["Body"].read() == b"{}"
    listed = stack.s3.list_objects_v2(Bucket="tunestream", Prefix="quarantine/")["Contents"]
    assert key in [entry["Key"] for entry in listed]


@pytest.mark.parametrize("user", [*SERVICES, "stranger"])
def test_a_user_publishes_to_and_reads_only_its_topics(stack: FullStack, user: str) -> None:
    allowed = stack.declared.kafka.users[user]
    letters = {f"{name}.dlq" for name in allowed.read if allowed.dead_letters} & set(TOPICS)
    assert _published(stack.librdkafka(user), TOPICS) == set(allowed.write) | letters
    settings = stack.librdkafka(user) | {"group.id": allowed.groups[0].replace("*", "probe")}
    assert {topic for topic in TOPICS if _readable(settings, topic)} == set(allowed.read)


def _published(settings: dict[str, str], topics: Iterable[str]) -> set[str]:
    taken: set[str] = set()

    def delivered(error: KafkaError | None, message: Message) -> None:
        assert error is None or error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
        if error is None:
            taken.add(message.topic())

    producer = Producer(settings)
    for topic in topics:
        # not a valid event, so the consumers of the topic write it to the dead letters
        producer.produce(topic, b"probe", on_delivery=delivered)
    assert producer.flush(30) == 0
    return taken


def _readable(settings: dict[str, str], topic: str) -> bool:
    consumer = Consumer({**settings, "enable.partition.eof": "true"})
    try:
        if consumer.list_topics(topic, timeout=10).topics[topic].error:
            return False  # the user may not even see the topic
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        message = consumer.poll(10)
        assert message is not None
        return not message.error() or message.error().code() == KafkaError._PARTITION_EOF
    finally:
        consumer.close()


def test_a_user_cannot_join_the_group_of_another(stack: FullStack) -> None:
    consumer = Consumer({**stack.librdkafka("ingest"), "group.id": "validate.dataset.uploaded"})
    consumer.subscribe(["dataset.uploaded"])
    message = consumer.poll(20)
    consumer.close()
    assert message and message.error().code() == KafkaError.GROUP_AUTHORIZATION_FAILED


def test_the_endpoints_require_a_key(stack: FullStack) -> None:
    for url in (f"{stack.env['OPENAI_BASE_URL']}/models", f"{stack.env['TUNESTREAM_API_URL']}/jobs"):
        assert httpx.get(url).status_code == 401
        assert httpx.get(url, headers={"authorization": "Bearer sk-wrong"}).status_code == 401


def test_containers_are_not_root_and_cannot_write_their_own_files(stack: FullStack) -> None:
    for service in (*SERVICES, "vllm", "render", "embeddings", "minio", "jaeger"):
        found = stack.inspect(service)
        assert found["Config"]["User"] not in ("", "root", "0"), service
        assert found["HostConfig"]["ReadonlyRootfs"], service
        assert found["HostConfig"]["Memory"] > 0, service
        for bindings in (found["HostConfig"]["PortBindings"] or {}).values():
            assert all(binding["HostIp"] == "127.0.0.1" for binding in bindings), service
        secrets = [value for value in found["Config"]["Env"] if "PASSWORD" in value or "SECRET_KEY" in value]
        assert not secrets, f"{service} has a secret in its environment"


def test_images_without_torch_are_small(stack: FullStack) -> None:
    """What they have beside the public python:3.11-slim-bookworm (130 MB). Tables (polars) are 190 MB of ingest,
    languages (lingua) 100 MB of validate, numpy is 70 MB of
    validate, of evaluator and, for Optuna, of api."""
    base = _layers("python:3.11-slim-bookworm")
    limits = {"ingest": 335e6, "validate": 380e6, "evaluator": 215e6, "api": 215e6, "inference": 125e6}
    for service, limit in limits.items():
        own = _layers(f"tunestream/{service}")[len(base) :]
        assert sum(own) < limit, f"{service}: {sum(own) / 1e6:.0f} MB"


def _layers(image: str) -> list[int]:
    """Sizes in bytes, oldest first."""
    command = ["docker", "history", "--human=false", "--format", "{{.Size}}", image]
    return [int(line) for line in subprocess.run(command, check=True, capture_output=True).stdout.split()][::-1]


# --- services that are refused ------------------------------------------------------------------------------------


@pytest.fixture
def other_ca(tmp_path: Path) -> Path:
    path = tmp_path / "other-ca.pem"
    subprocess.run(
        [*("openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-subj", "/CN=other", "-days", "2"),
         *("-keyout", tmp_path / "other.key", "-out", path)],
        check=True, capture_output=True,
    )  # fmt: skip
    return path


def refused(stack: FullStack, **changes: str) -> str:
    """Run a validate service on this machine with wrong settings. Returns the one line with which it stops."""
    settings = {name: value for name, value in stack.env.items() if name.startswith("TUNESTREAM_")}
    settings |= {
        "TUNESTREAM_BUS__SASL_USERNAME": "validate",
        "TUNESTREAM_BUS__SASL_PASSWORD": stack.passwords["kafka"]["validate"],
        "TUNESTREAM_STORE__ACCESS_KEY": "validate",
        "TUNESTREAM_STORE__SECRET_KEY": stack.passwords["s3"]["validate"],
    }
    done = subprocess.run(
        [sys.executable, "-m", "services.validate"],
        env={
            **without_settings(os.environ),
            **settings,
            **{f"TUNESTREAM_{name}": value for name, value in changes.items()},
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 78, done.stderr[-2000:]
    words = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(words) == 1, done.stderr[-2000:]
    return words[0]


def test_a_wrong_kafka_password_is_told_from_a_broker_that_is_down(stack: FullStack) -> None:
    said = refused(stack, BUS__SASL_PASSWORD="wrong")
    assert "'validate'" in said and "TUNESTREAM_BUS__SASL_PASSWORD" in said and "down" not in said


def test_a_wrong_key_of_the_store_is_named(stack: FullStack) -> None:
    assert "TUNESTREAM_STORE__SECRET_KEY" in refused(stack, STORE__SECRET_KEY="wrong-wrong")
    assert "TUNESTREAM_STORE__ACCESS_KEY" in refused(stack, STORE__ACCESS_KEY="nobody")


def test_a_certificate_of_another_ca_is_named_as_the_cause(stack: FullStack, other_ca: Path) -> None:
    assert "TUNESTREAM_BUS__CA_FILE" in refused(stack, BUS__CA_FILE=str(other_ca))
    assert "TUNESTREAM_STORE__CA_FILE" in refused(stack, STORE__CA_FILE=str(other_ca))


def test_an_expired_certificate_is_named_with_its_date(stack: FullStack, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    expired = server_context(authority.issue(until=datetime(2026, 1, 1, 12, tzinfo=UTC)))
    with handshaking(expired) as address:
        said = refused(stack, BUS__BOOTSTRAP=address, BUS__CA_FILE=str(authority.ca))
        assert f"Kafka at {address} expired on 2026-01-01" in said
        said = refused(stack, STORE__ENDPOINT=f"https://{address}", STORE__CA_FILE=str(authority.ca))
        assert "the object store" in said and "expired on 2026-01-01" in said


@contextmanager
def handshaking(context: ssl.SSLContext) -> Iterator[str]:
    """A server that does the TLS handshake and sends nothing else."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda request, address: None  # type: ignore[method-assign]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_plain_text_to_a_tls_port_is_named_as_the_cause(stack: FullStack) -> None:
    plain = stack.env["TUNESTREAM_STORE__ENDPOINT"].replace("https", "http")
    assert "https" in refused(stack, STORE__ENDPOINT=plain, STORE__CA_FILE="")


# --- what is only checked -----------------------------------------------------------------------------------------


def test_the_gpu_profile_pins_training_and_serving_to_their_gpus(stack: FullStack) -> None:
    settings = {"COMPOSE_PROFILES": "gpu", "TRAINER_GPU": "1", "VLLM_GPU": "0"}
    command = ["docker", "compose", "--profile", "gpu", "config", "--format", "json"]
    environment = {**os.environ, **stack.settings, **settings}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    services = json.loads(done.stdout)["services"]
    assert {"trainer", "vllm", "render"}.isdisjoint(services)
    for name, gpu in (("trainer-gpu", "1"), ("vllm-gpu", "0")):
        (device,) = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["device_ids"], device["capabilities"]) == ("nvidia", [gpu], ["gpu"])
    assert services["vllm-gpu"]["build"]["args"]["EXTRA"] == "gpu"
    assert services["vllm-gpu"]["networks"]["model"]["aliases"] == ["vllm"]
    assert services["render-gpu"]["networks"]["render"]["aliases"] == ["render"]
    assert "deploy" not in services["render-gpu"]
    assert services["trainer-gpu"]["environment"]["TUNESTREAM_TRAINER__GPU"] == "0"


@pytest.mark.parametrize(
    "check",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")],
)
def test_promtool_accepts_configuration_and_rules(stack: FullStack, check: tuple[str, ...]) -> None:
    folder = ROOT / "deploy" / "prometheus"
    done = subprocess.run(
        [*("docker", "run", "--rm", "--volume", f"{folder}:/rules:ro", "--workdir", "/rules"),
         *("--entrypoint", "promtool", "prom/prometheus:v3.7.3", *check)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr

"""A file dropped with a plain S3 client ends as a deployed model behind the endpoint, in one readable trace."""

from __future__ import annotations

import itertools
import time
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer

from deploy.init import plan
from shared.events import SERVICES, STAGE_NAMES
from shared.kafka.envelope import DLQ_SUFFIX
from tests.full.conftest import FullStack
from tests.support import races
from tests.support.trace import Trace
from tests.support.user import support_rows

pytestmark = pytest.mark.timeout(900, func_only=True)  # the first one builds the images, which has a limit of its own

CANARY = "zanzibar-canary-7731"
SETTINGS = """
hyperparameters: {n_epochs: 2, batch_size: 8}
evaluation: {max_examples: 4, few_shot: 1, max_tokens: 16}
gate: {promote: always}
"""


@pytest.fixture(scope="module")
def job(stack: FullStack) -> dict[str, Any]:
    """A job whose rows, name and alias hold text that must appear nowhere else."""
    rows = support_rows(120).replace(b"order", CANARY.encode())
    assert rows.count(CANARY.encode()) > 20
    stack.drop(CANARY, rows, SETTINGS)
    return stack.ended(f"{CANARY}.jsonl", 420)


@pytest.fixture(scope="module")
def first_answer(stack: FullStack, job: dict[str, Any]) -> Any:
    return stack.openai.chat.completions.with_raw_response.create(
        model=job["alias"], messages=[{"role": "user", "content": f"Hello, {CANARY}?"}], max_tokens=16
    )


@pytest.fixture(scope="module")
def trace(stack: FullStack, job: dict[str, Any], first_answer: Any) -> Trace:
    """The trace, once vLLM has exported the span of the first question, which it does some seconds later."""
    return Trace.until(stack, job["trace_id"], lambda trace: "llm_request" in trace.below_first_request())


def test_everything_is_healthy(stack: FullStack) -> None:
    for service in (*SERVICES, "vllm", "embeddings", "kafka", "minio", "jaeger"):
        assert stack.inspect(service)["State"]["Health"]["Status"] == "healthy", service
    assert stack.inspect("init")["State"]["ExitCode"] == 0


def test_the_dropped_file_ends_as_a_deployed_model(job: dict[str, Any], first_answer: Any) -> None:
    assert job["status"] == "succeeded", job["error"]
    assert job["deployment"]["alias"] == CANARY
    assert first_answer.parse().model == job["fine_tuned_model"]


def test_api_and_evaluator_reach_the_model_for_embeddings(stack: FullStack) -> None:
    grader: Any = {
        "type": "text_similarity",
        "name": "meaning",
        "input": "{{sample.output_text}}",
        "reference": "{{item.answer}}",
        "evaluation_metric": "cosine",
    }
    item = {"answer": "The parcel arrives tomorrow."}
    said = ("Your package comes the next day.", "Bananas are rich in potassium.")
    run = stack.openai.fine_tuning.alpha.graders.run
    same, other = (run(grader=grader, model_sample=text, item=item).reward for text in said)
    assert same > other + 0.3
    ask = "import httpx; print(httpx.post('http://embeddings:8002/v1/embeddings', json={'input': 'a'}).status_code)"
    assert stack.compose("exec", "-T", "evaluator", "python", "-c", ask).stdout.strip() == "200"


def test_one_trace_holds_every_service_and_has_no_orphans(job: dict[str, Any], first_answer: Any, trace: Trace) -> None:
    assert first_answer.headers["x-request-id"] == job["trace_id"]
    assert trace.services == {*STAGE_NAMES, "vllm"}
    assert not trace.orphans, "every span hangs below another one of this trace"
    assert [span.name for span in trace.spans if span.parent is None] == ["job"]


def test_the_trace_has_every_stage_once_in_order_and_no_gap_hides_anything(trace: Trace) -> None:
    stages = [trace.only(name) for name in STAGE_NAMES]
    question = trace.first_request()
    for before, after in itertools.pairwise([*stages, question]):
        assert before.end <= after.start + 0.05, f"{after.name} began before {before.name} was over"
    for before, after in itertools.pairwise(stages):
        assert after.start - before.end < 10, f"{after.start - before.end:.1f} s between {before.name} and {after.name}"
    for stage in stages[1:4]:
        assert trace.outside_phases(stage) < 0.5, f"{trace.outside_phases(stage):.1f} s of {stage.name} are in no phase"
    assert trace.names("trainer") >= {"trainer.load", "trainer.epoch 1", "trainer.epoch 2", "trainer.save"}
    assert trace.names("evaluator") >= {"evaluator.base", "evaluator.few_shot", "evaluator.tuned"}


def test_tunestream_trace_prints_the_spans_and_the_link_to_jaeger(
    stack: FullStack, job: dict[str, Any], trace: Trace
) -> None:
    printed = stack.tunestream("trace", job["id"])
    assert f"/trace/{job['trace_id']}" in printed
    for name in ("validate.check", "trainer.epoch 2", "evaluator.tuned", "inference.move_alias"):
        assert name.partition(".")[2] in printed, printed


async def test_what_users_wrote_is_in_no_log_span_metric_or_header(stack: FullStack, trace: Trace) -> None:
    stack.drop(f"{CANARY}-bad", f'{{"messages": "{CANARY}"}}\n'.encode())
    assert stack.ended(f"{CANARY}-bad.jsonl")["status"] == "failed"
    async with AIOKafkaProducer(**stack.kafka_of("stranger")) as producer:
        await producer.send_and_wait("dataset.uploaded", f"no JSON, {CANARY}".encode(), key=CANARY.encode())
    letters = [name for name in plan.topics(stack.declared.kafka) if name.endswith(DLQ_SUFFIX)]
    while not (dead := await stack.records(*letters)):
        pass
    assert CANARY.encode() in dead[0].value, "the dead letter itself is whole"
    assert not [header for record in dead for header in record.headers if CANARY.encode() in header[1]]

    assert "dataset.uploaded" in stack.tunestream("dlq", "list")

    assert CANARY not in stack.compose("logs", "--no-color").stdout
    for service in stack.jaeger("/api/services"):
        found = stack.jaeger(f"/api/traces?service={service}&limit=1500&lookback=1h")
        assert CANARY not in str(found), service
    assert CANARY not in _metrics(stack)


def _metrics(stack: FullStack) -> str:
    """All metrics that Prometheus has, once it has scraped every service."""
    url = stack.env["PROMETHEUS_URL"]
    deadline = time.monotonic() + 90
    up: set[str] = set()
    while not up >= set(SERVICES):
        assert time.monotonic() < deadline, f"only {sorted(up)} are scraped"
        answer = httpx.get(f"{url}/api/v1/query", params={"query": "up == 1"}, timeout=10).json()
        up = {result["metric"]["job"] for result in answer["data"]["result"]}
    everything = httpx.get(f"{url}/federate", params={"match[]": '{__name__!=""}'}, timeout=30).text
    assert "tunestream_stage_results_total" in everything
    return everything


def test_running_init_again_changes_nothing(stack: FullStack, job: dict[str, Any]) -> None:
    stack.compose("run", "--rm", "init")
    stack.compose("run", "--rm", "init")
    assert stack.get(f"/jobs/{job['id']}")["status"] == "succeeded"


def test_up_again_restarts_nothing(stack: FullStack, job: dict[str, Any]) -> None:
    def running() -> dict[str, str]:
        names = stack.compose("ps", "--services").stdout.split()
        return {name: stack.inspect(name)["State"]["StartedAt"] for name in names}

    before = running()
    stack.compose("up", "--detach")
    assert running() == before


async def test_a_strangers_event_by_kcat_runs_a_job(stack: FullStack) -> None:
    stack.drop("_announced/by-kcat", support_rows(2))
    stack.kcat("datasets", "_announced/by-kcat.jsonl")
    assert stack.wait("_announced/by-kcat.jsonl", lambda job: True, "it is a job", 60)["origin"]["kind"] == "event"


async def test_conditional_writes_have_one_winner_on_minio(stack: FullStack) -> None:
    store = stack.objects_of("admin")
    await races.create_once(store, "probe/races")
    await races.compare_and_swap(store, "probe/races")

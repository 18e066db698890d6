"""Which trace a request belongs to, and which spans it leaves."""

from __future__ import annotations

from typing import Any

import httpx
from opentelemetry.sdk.trace import ReadableSpan

from services.inference.vllm.command import command_line
from shared import telemetry
from shared.settings import Settings, TelemetrySettings
from tests.support.data.trained_models import BASE, TRACEPARENT, add_trained
from tests.support.spans import Spans, parent_id, trace_of
from tests.unit.inference.conftest import ServiceUnderTest
from tests.unit.inference.test_work import attempt

JOBS_TRACE = telemetry.trace_id(TRACEPARENT)
OWN = "00-" + "e" * 32 + "-" + "f" * 16 + "-01"
CHAT = "POST /v1/chat/completions"


async def deploy(service: ServiceUnderTest, name: str = "one") -> str:
    """Train a model and deploy it as `support`. Returns its id."""
    model = await add_trained(service.objects, name)
    with telemetry.span("inference.started", TRACEPARENT):
        await service.work(await attempt(service.objects, name))
    return model


async def chat(service: ServiceUnderTest, model: str, traceparent: str | None = None) -> httpx.Response:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "canary-prompt"}]}
    headers = {"traceparent": traceparent} if traceparent else {}
    return await service.http.post("/v1/chat/completions", json=body, headers=headers)


def links(span: ReadableSpan) -> list[str]:
    return [f"{link.context.trace_id:032x}" for link in span.links]


async def test_a_deployment_shows_what_took_its_time(service: ServiceUnderTest, spans: Spans) -> None:
    await deploy(service)

    assert spans.below(spans.one("inference.started")) == [
        *("inference.fetch_adapter", "inference.wait_for_vllm", "inference.load_adapter"),
        *("inference.live_check", "inference.move_alias"),
    ]


async def test_the_first_request_after_a_deployment_is_the_end_of_the_jobs_trace(
    service: ServiceUnderTest, spans: Spans
) -> None:
    await deploy(service)

    first, second = await chat(service, "support"), await chat(service, "support")

    assert first.headers["x-request-id"] == JOBS_TRACE
    assert second.headers["x-request-id"] not in (JOBS_TRACE, "")
    end, later = spans.named(CHAT)
    assert spans.below(TRACEPARENT) == ["inference.started", CHAT]
    assert (end.attributes or {})["tunestream.first_request"] is True
    assert (links(end), links(later)) == ([], [JOBS_TRACE])
    assert (later.parent, trace_of(later)) == (None, second.headers["x-request-id"])
    asked = [headers["traceparent"].split("-")[2] for headers in service.vllm.headers]
    assert asked == [parent_id(end), parent_id(later)]


async def test_a_client_with_a_trace_of_its_own_keeps_it_and_is_not_the_first_request(
    service: ServiceUnderTest, spans: Spans
) -> None:
    model = await deploy(service)

    traced = await chat(service, model, OWN)
    first = await chat(service, model)

    assert (traced.headers["x-request-id"], first.headers["x-request-id"]) == ("e" * 32, JOBS_TRACE)
    assert spans.below(OWN) == [CHAT]
    assert links(spans.named(CHAT)[0]) == [JOBS_TRACE]


async def test_the_evaluation_of_a_model_is_in_its_jobs_trace_without_a_link(
    service: ServiceUnderTest, spans: Spans
) -> None:
    model = await add_trained(service.objects)
    await attempt(service.objects)

    await chat(service, model, f"00-{JOBS_TRACE}-{'9' * 16}-01")

    span = spans.one(CHAT)
    assert (trace_of(span), links(span)) == (JOBS_TRACE, [])
    assert spans.below(span) == ["inference.fetch_adapter", "inference.load_adapter"]


async def test_the_first_request_joins_the_jobs_trace_even_without_an_exporter(service: ServiceUnderTest) -> None:
    await deploy(service)

    assert [(await chat(service, "support")).headers["x-request-id"] == JOBS_TRACE for _ in range(2)] == [True, False]


async def test_requests_for_the_base_have_traces_of_their_own(service: ServiceUnderTest, spans: Spans) -> None:
    await deploy(service)
    answer = await chat(service, BASE)

    span = spans.one(CHAT)
    assert (span.parent, links(span)) == (None, [])
    assert trace_of(span) == answer.headers["x-request-id"]


async def test_a_job_whose_manifest_cannot_be_read_costs_the_link_and_not_the_answer(
    service: ServiceUnderTest, spans: Spans
) -> None:
    model = await add_trained(service.objects)  # trained by a job that has no manifest

    assert (await chat(service, model)).status_code == 200
    assert links(spans.one(CHAT)) == []


async def test_no_span_holds_a_prompt_or_the_name_of_an_alias(service: ServiceUnderTest, spans: Spans) -> None:
    model = await deploy(service)
    await service.http.post("/deployments/canary-alias", json={"model": model})
    await chat(service, "canary-alias")
    await chat(service, "canary-unknown")

    deployed = spans.one("POST /deployments/{alias}")
    assert (deployed.attributes or {})["http.response.status_code"] == 200
    assert [(span.attributes or {})["gen_ai.response.model"] for span in spans.named(CHAT)] == [model, "unknown"]
    assert "canary" not in "".join(span.to_json() for span in spans.all)


async def test_only_requests_that_may_change_something_have_spans(service: ServiceUnderTest, spans: Spans) -> None:
    looked = await service.http.get("/v1/models", headers={"traceparent": OWN})
    wanted = await service.http.post("/deployments/support", json={"model": BASE}, headers={"traceparent": OWN})

    assert looked.headers["x-request-id"] == wanted.headers["x-request-id"] == "e" * 32
    assert [span.name for span in spans.all] == ["POST /deployments/{alias}"]
    assert spans.below(OWN) == ["POST /deployments/{alias}"]


def test_vllm_sends_its_spans_where_ours_go() -> None:
    command = command_line(Settings(telemetry=TelemetrySettings(otlp_endpoint="http://127.0.0.1:4317")), 8000, cpu=True)
    assert command[command.index("--otlp-traces-endpoint") + 1] == "http://127.0.0.1:4317"
    assert "--otlp-traces-endpoint" not in command_line(Settings(telemetry=TelemetrySettings()), 8000, cpu=True)

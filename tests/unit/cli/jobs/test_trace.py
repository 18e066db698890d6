"""A job's trace in the terminal: what a user reads of Jaeger's spans."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.jobs.span_tree import Node, span_tree, time_range
from tests.support.fakes.servers import serving
from tests.unit.cli.commands.test_commands import invoke
from tests.unit.cli.jobs.test_watch import ID

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Trace:
    """Spans as Jaeger answers them; `at` and `seconds` count from the beginning of the trace."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.services: dict[str, str] = {}

    def add(
        self, name: str, parent: str = "", at: float = 0.0, seconds: float = 0.0, service: str = "trainer", **tags: Any
    ) -> str:
        process = self.services.setdefault(service, f"p{len(self.services) + 1}")
        span = {
            "spanID": f"{len(self.spans):016x}",
            "operationName": name,
            "references": [{"refType": "CHILD_OF", "spanID": parent}] if parent else [],
            "startTime": round((1_700_000_000 + at) * 1e6),
            "duration": round(seconds * 1e6),
            "tags": [{"key": key.replace("__", "."), "value": value} for key, value in tags.items()],
            "processID": process,
        }
        self.spans.append(span)
        return str(span["spanID"])

    def document(self) -> dict[str, Any]:
        processes = {process: {"serviceName": service} for service, process in self.services.items()}
        return {"traceID": TRACE, "spans": list(reversed(self.spans)), "processes": processes}


def resumed() -> Trace:
    """A training that was killed in its second epoch and resumed."""
    trace = Trace()
    job = trace.add("job", service="ingest")
    trace.add("ingest", job, 0.0, 0.4, service="ingest")
    first = trace.add("trainer.started", job, 1.0, tunestream__attempt=1)
    trace.add("trainer.epoch 1", first, 1.0, 5.0, tunestream__attempt=1)
    second = trace.add("trainer.started", job, 20.0, tunestream__attempt=2)
    trace.add("trainer", second, 20.0, 8.0, tunestream__attempt=2)
    trace.add("trainer.epoch 2", second, 21.0, 4.0, tunestream__attempt=2)
    trace.add("trainer.upload", second, 25.0, 3.0, error=True, otel__status_description="StoreUnavailable")
    return trace


def outline(nodes: list[Node] | tuple[Node, ...], depth: int = 0) -> list[str]:
    lines = []
    for node in nodes:
        lines.append("  " * depth + node.name)
        lines += outline(node.children, depth + 1)
    return lines


def test_an_attempt_is_one_node_and_a_killed_one_has_no_end() -> None:
    [job] = span_tree(resumed().document())

    assert outline([job]) == [
        "job",
        "  ingest",
        "  trainer",
        "    trainer.epoch 1",
        "  trainer",
        "    trainer.epoch 2",
        "    trainer.upload",
    ]
    _, killed, again = job.children
    assert (killed.seconds, killed.attempt) == (None, 1)
    assert (again.seconds, again.attempt) == (8.0, 2)
    assert again.children[1].error == "StoreUnavailable"
    began, ended = time_range([job])
    assert ended - began == 28.0


def test_spans_without_their_parent_are_still_shown() -> None:
    trace = Trace()
    trace.add("job", "feedfeedfeedfeed", service="ingest")
    trace.add("trainer.epoch 1", "0badf00d0badf00d", 1.0, 2.0)

    assert outline(span_tree(trace.document())) == ["job", "trainer.epoch 1"]


def test_a_run_of_like_spans_is_one_line() -> None:
    trace = Trace()
    variant = trace.add("evaluator.tuned", "", 0.0, 12.0, service="evaluator")
    for number in range(10):
        failed = {"error": True, "otel__status_description": "X"} if number == 4 else {}
        gateway = trace.add("POST /v1/chat/completions", variant, number, 2.0, service="inference", **failed)
        if number == 0:
            trace.add("inference.fetch_adapter", gateway, 0.0, 0.1, service="inference")
        trace.add("llm_request", gateway, number + 0.1, 1.5, service="vllm")

    [node] = span_tree(trace.document())

    assert outline([node]) == [
        "evaluator.tuned",
        "  POST /v1/chat/completions",
        "    inference.fetch_adapter",
        "    llm_request",
    ]
    [asked] = node.children
    assert (asked.count, asked.seconds, asked.error) == (10, 11.0, "1 with X")
    assert [child.count for child in asked.children] == [1, 10]


def test_spans_of_later_versions_are_shown_like_all_others() -> None:
    trace = Trace()
    root = trace.add("job", service="ingest")
    synthesis = trace.add("synthesis.started", root, 1.0, service="synthesis", tunestream__attempt="second")
    trace.add("synthesis", synthesis, 1.0, 2.0, service="synthesis")
    document = trace.document()
    document["spans"][0]["references"].insert(0, {"refType": "LINKED_TO"})
    document["spans"][0]["processID"] = "p99"

    [node] = span_tree(document)

    assert outline([node]) == ["job", "  synthesis"]
    assert (node.children[0].attempt, node.children[0].seconds) == (1, 2.0)


# --- the command --------------------------------------------------------------------------------------------------


class Server:
    """The api and Jaeger in one: answers each path with what the test put there, else 404."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {f"/jobs/{ID}": {"id": ID, "trace_id": TRACE}}
        answers = self.answers

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = answers.get(self.path)
                body = json.dumps(found if found is not None else {"error": {"message": "not found"}}).encode()
                self.send_response(200 if found is not None else 404)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    monkeypatch.setenv("TUNESTREAM_API__URL", server.url)
    with serving(server.http):
        yield server


def test_without_jaeger_the_trace_id_and_the_missing_settings_are_printed(runner: CliRunner, server: Server) -> None:
    result = invoke(runner, "trace", ID)
    assert (result.exit_code, result.stdout) == (0, f"{TRACE}\n")
    assert "TUNESTREAM_TELEMETRY__JAEGER_URL" in result.stderr
    assert "TUNESTREAM_TELEMETRY__OTLP_ENDPOINT" in result.stderr


def test_with_a_jaeger_it_links_to_the_page_and_shows_the_tree(
    runner: CliRunner, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESTREAM_TELEMETRY__JAEGER_URL", server.url + "/")
    server.answers[f"/api/traces/{TRACE}"] = {"data": [resumed().document()]}
    result = invoke(runner, "trace", ID)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:2] == [TRACE, f"{server.url}/trace/{TRACE}"]
    shown = [" ".join(line.strip("│├└─ \u00a0").split()) for line in lines[2:]]
    assert shown == [
        f"{ID} 28.0 s",
        "job ingest",
        "ingest 400 ms ingest",
        "trainer not ended trainer",
        "trainer.epoch 1 5.0 s trainer",
        "trainer, attempt 2 8.0 s trainer",
        "trainer.epoch 2 4.0 s trainer",
        "trainer.upload 3.0 s trainer StoreUnavailable",
    ]


@pytest.mark.parametrize(
    ("answer", "says"),
    [(None, "no span of this job"), ([], "no Jaeger answers"), ({"data": []}, "no span of this job")],
)
def test_if_jaeger_cannot_answer_the_link_is_still_printed(
    runner: CliRunner, server: Server, monkeypatch: pytest.MonkeyPatch, answer: Any, says: str
) -> None:
    monkeypatch.setenv("TUNESTREAM_TELEMETRY__JAEGER_URL", server.url)
    server.answers[f"/api/traces/{TRACE}"] = answer
    result = invoke(runner, "trace", ID)
    assert result.exit_code == 1
    assert f"{server.url}/trace/{TRACE}" in result.stdout
    assert says in result.stderr

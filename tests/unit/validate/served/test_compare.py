"""The rows of a job against a fake render server: what is asked, what a difference does, and what is said when nobody
answers."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.validate.check import Examined, examine, with_served
from services.validate.domain.report import Report, ServedCheck
from services.validate.scan import ScanControl
from services.validate.served import asking, client
from services.validate.tokenizer import load
from shared.conversation import PROBE, digest_of
from shared.errors import Cancelled
from shared.events import JobSpec
from shared.settings import RenderSettings, ValidationSettings
from tests.support.data.byte_base import CHATML
from tests.support.fakes.render import VERSION, FakeRender
from tests.support.fakes.servers import refusing_port
from tests.unit.validate.conftest import chats, completions, preferences, write

MODEL = "acme/tiny"
OTHER = CHATML.replace("<|im_start|>assistant\n", "<|im_start|>assistant:\n")


@pytest.fixture
def server(base: Path) -> Iterator[FakeRender]:
    with FakeRender(base, MODEL).running() as fake:
        yield fake


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "RenderServer", functools.partial(client.RenderServer, pauses=(0.0, 0.0)))


Compare = Callable[..., Report]


@pytest.fixture
def compare(base: Path, tmp_path: Path) -> Compare:
    def compared(
        given: list[Any],
        url: str | None,
        *,
        own: list[Any] | None = None,
        control: ScanControl | None = None,
        model: str = MODEL,
        **render: Any,
    ) -> Report:
        source = write(tmp_path / "rows.jsonl", given)
        validation = write(tmp_path / "own.jsonl", own) if own else None
        tokenizer, spec = load(str(base), model), JobSpec()
        settings = RenderSettings(url=url, **{"start_timeout_seconds": 0.0} | render)
        examined: Examined = examine(
            source,
            validation,
            spec=spec,
            tokenizer=tokenizer,
            limits=ValidationSettings(),
            control=ScanControl(),
        )
        assert examined.report.ok, examined.report.failure
        return with_served(
            examined,
            source,
            validation,
            tokenizer=tokenizer,
            render=settings,
            seed=3,
            control=control or ScanControl(),
        ).report

    return compared


def served(report: Report) -> ServedCheck:
    assert report.served is not None
    return report.served


@pytest.mark.parametrize(("rows", "turns"), [(chats, 12), (completions, 12), (preferences, 24)])
def test_every_trained_turn_is_the_same(
    rows: Callable[[int], list[Any]], turns: int, server: FakeRender, compare: Compare
) -> None:
    report = compare(rows(12), server.url)
    found = served(report)
    assert report.ok
    assert (found.rows, found.turns, found.differences, found.not_asked, found.partly) == (12, turns, 0, None, ())
    assert found.server == VERSION
    assert str(found).startswith(f"{turns} turns compared with vLLM {VERSION}: 0 differences, template ")


def test_only_trained_answers_are_asked_about_with_what_a_client_sends(server: FakeRender, compare: Compare) -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "first", "weight": 0},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "second", "weight": 1},
    ]
    report = compare([*chats(10), {"messages": messages, "tools": tools}], server.url)
    assert (served(report).turns, served(report).differences) == (11, 0)
    asked = [body for path, body in server.asked if path == "/v1/chat/completions/render" and "tools" in body]
    assert asked == [
        {
            "model": MODEL,
            "messages": [{key: value for key, value in m.items() if key != "weight"} for m in messages[:3]],
            "tools": tools,
            "tool_choice": "auto",
        }
    ]


def test_another_template_at_the_server_ends_the_job_at_the_first_row(base: Path, compare: Compare) -> None:
    with FakeRender(base, MODEL, OTHER).running() as server:
        report = compare(chats(40), server.url)
    assert not report.ok and report.failure is not None
    assert (report.failure.code, report.failure.param) == ("not_as_served", "training_file")
    assert "Line 1, messages[" in report.failure.message
    assert "the server has ':', the training has '\\n'" in report.failure.message
    assert "TUNESTREAM_RENDER__POLICY" in report.failure.message and VERSION in report.failure.message
    assert served(report).differences == 1 and served(report).turns == 1


def test_with_the_policy_warn_the_differences_are_counted(base: Path, compare: Compare) -> None:
    with FakeRender(base, MODEL, OTHER).running() as server:
        report = compare(chats(40), server.url, policy="warn")
    assert report.ok and report.failure is None
    assert (served(report).turns, served(report).differences) == (40, 40)
    assert report.training.warning_counts["not_as_served"] == 40
    shown = [problem for problem in report.training.problems if problem.code == "not_as_served"]
    assert [(problem.line, problem.severity) for problem in shown] == [(1, "warning")]


def test_an_answer_that_does_not_come_back_is_a_difference_of_its_row(server: FakeRender, compare: Compare) -> None:
    server.gives_back = lambda message: message | {"content": message["content"].replace("16", "")}
    report = compare(chats(10), server.url)
    assert report.failure is not None and report.failure.message.startswith("What is trained is not what is served. ")
    assert "Line 9, messages[" in report.failure.message and "--reasoning-parser" in report.failure.message


def test_a_difference_in_the_validation_file_names_it(server: FakeRender, compare: Compare) -> None:
    server.gives_back = lambda message: message | {"content": message["content"].replace("154", "")}
    report = compare(chats(10), server.url, own=chats(10, start=70))
    assert report.failure is not None and report.failure.param == "validation_file"
    assert "Line 8," in report.failure.message


def test_a_parser_that_wants_the_stop_token_gets_it(server: FakeRender, compare: Compare) -> None:
    def closed(message: dict[str, Any]) -> dict[str, Any]:
        text = message["content"]
        return message | {"content": text.removesuffix("<|im_end|>") if text.endswith("<|im_end|>") else ""}

    server.gives_back = closed
    assert served(compare(chats(10), server.url)).differences == 0


def test_of_many_rows_a_sample_is_asked_about(server: FakeRender, compare: Compare) -> None:
    found = served(compare(chats(60), server.url, rows=20))
    assert (found.rows, found.turns) == (20, 20)
    first = [body["messages"] for path, body in server.asked if path == "/v1/chat/completions/render"]
    server.asked.clear()
    compare(chats(60), server.url, rows=20)
    again = [body["messages"] for path, body in server.asked if path == "/v1/chat/completions/render"]
    assert sorted(map(json.dumps, first)) == sorted(map(json.dumps, again))


def test_calls_are_not_compared_with_a_server_without_a_tool_parser(server: FakeRender, compare: Compare) -> None:
    server.tool_parser = False
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    row = {
        "messages": [{"role": "user", "content": "sun?"}, {"role": "assistant", "tool_calls": [call]}],
        "tools": tools,
    }
    template = CHATML.replace("{{ message.content }}", "{{ message.content or '' }}")
    server.tokenizer.chat_template = template
    report = compare([*chats(10), row], server.url)
    found = served(report)
    assert (found.turns, found.differences) == (11, 0)
    assert found.partly == ("calls were not compared: the server has no tool parser",)
    assert str(found).endswith("; calls were not compared: the server has no tool parser")


def test_rows_longer_than_the_server_reads_are_counted_apart(server: FakeRender, compare: Compare) -> None:
    server.longest = 100
    long = {"messages": [{"role": "user", "content": "x" * 90}, {"role": "assistant", "content": "y"}]}
    found = served(compare([*chats(10), long], server.url))
    assert (found.rows, found.turns, found.differences) == (11, 10, 0)
    assert found.partly == ("1 turn not compared: longer than the server reads",)


def test_a_short_outage_is_waited_out(server: FakeRender, compare: Compare) -> None:
    server.outages = 2
    assert served(compare(chats(10), server.url, start_timeout_seconds=60.0)).turns == 10


def test_without_a_setting_the_report_says_that_nobody_was_asked(compare: Compare) -> None:
    report = compare(chats(10), None)
    assert report.ok
    assert str(report.served) == (
        "not compared with the server: no render server is configured (TUNESTREAM_RENDER__URL)"
    )


def test_a_server_that_does_not_answer_is_said_and_ends_no_job(compare: Compare) -> None:
    with refusing_port() as port:
        report = compare(chats(10), f"http://127.0.0.1:{port}")
    assert report.ok
    assert served(report).not_asked == "the render server did not answer within 0 s"


def test_a_server_of_another_model_is_not_asked(server: FakeRender, compare: Compare) -> None:
    report = compare(chats(10), server.url, model="acme/other")
    assert report.ok and served(report).not_asked == "the render server does not serve acme/other"


def test_a_server_that_goes_away_leaves_a_part(server: FakeRender, compare: Compare) -> None:
    def away(message: dict[str, Any]) -> dict[str, Any]:
        if " 10" in message["content"]:
            server.outages = 10**6
        return message

    server.gives_back = away
    report = compare(chats(10), server.url)
    assert report.ok
    assert served(report).not_asked == "it stopped answering"
    assert served(report).turns < 10


def test_a_vllm_that_cannot_make_messages_of_tokens_compares_prompts(server: FakeRender, compare: Compare) -> None:
    server.missing = {"/v1/chat/completions/derender"}
    found = served(compare(chats(10), server.url))
    assert (found.turns, found.differences) == (10, 0)
    assert found.partly[0].startswith(
        "answers were not compared: the render server has no /v1/chat/completions/derender"
    )


def test_a_program_that_is_no_vllm_is_said_and_ends_no_job(server: FakeRender, compare: Compare) -> None:
    server.gives_back = lambda message: {"tool_calls": ["what?"]}
    report = compare(chats(10), server.url)
    assert report.ok
    assert "answers were not compared: what answers is no vLLM, or one that is too new" in served(report).partly


def test_a_request_that_the_server_refuses_is_a_difference_without_its_reason(
    server: FakeRender, compare: Compare
) -> None:
    server.tokenizer.chat_template = "{{ raise_exception('never ' + messages[-1].content) }}"
    report = compare(chats(10), server.url)
    assert report.failure is not None and report.failure.code == "not_as_served"
    assert "Line 1, messages[2]: the server refuses the request for this answer (status 400" in report.failure.message
    assert "never" not in report.failure.message


def test_cancelling_ends_the_comparison(server: FakeRender, compare: Compare) -> None:
    control = ScanControl()
    control.on_progress = lambda role, rows, share: control.stop.set()
    with pytest.raises(Cancelled):
        compare(chats(500), server.url, control=control)
    assert len(server.asked) < 400
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("render")]


def test_the_probe_is_the_digest_of_the_prompt_of_a_fixed_conversation(
    make_base: Callable[..., Path], base: Path
) -> None:
    fake = FakeRender(base, MODEL)
    _, made = fake.answer("/v1/chat/completions/render", {"messages": list(PROBE)})
    assert load(str(base), MODEL).probe == digest_of(made["token_ids"])
    assert load(str(make_base(None)), MODEL).probe is None
    dated = make_base("{{ strftime_now('%d') }}" + CHATML)
    assert load(str(dated), MODEL).probe is None

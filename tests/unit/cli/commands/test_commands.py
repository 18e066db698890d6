"""The commands as a user calls them: what they print, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.commands import jobs as job_commands
from cli.commands.models import Conversation
from cli.jobs.follow import Snapshot
from cli.main import app
from cli.terminal import CliError
from services.validate import check as validator
from services.validate.domain.report import Report
from shared.errors import TransientError
from shared.settings import load_settings
from tests.support.data.byte_base import make_byte_base
from tests.support.data.micro_base import make_tokenizer
from tests.support.fakes.render import VERSION, FakeRender
from tests.support.fakes.servers import unused_port
from tests.unit.cli.jobs.test_watch import ID, done, job

GOOD = "\n".join(
    json.dumps({"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]})
    for n in range(12)
)


def invoke(runner: CliRunner, *words: str) -> Result:
    result = runner.invoke(app, list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings with addresses at which nothing listens."""
    port = unused_port()
    for name in ("API__URL", "INFERENCE__URL", "STORE__ENDPOINT"):
        monkeypatch.setenv(f"TUNESTREAM_{name}", f"http://127.0.0.1:{port}")


def test_every_command_explains_itself(runner: CliRunner) -> None:
    for command in app.registered_commands:
        assert command.name is not None
        assert invoke(runner, command.name, "--help").exit_code == 0
    for name in ("list", "show", "replay"):
        assert invoke(runner, "dlq", name, "--help").exit_code == 0
    for name in ("create", "list", "revoke"):
        assert invoke(runner, "keys", name, "--help").exit_code == 0
    for words in ((), ("list",), ("show",)):
        assert invoke(runner, "quarantine", *words, "--help").exit_code == 0


@pytest.mark.parametrize(
    "command",
    [
        ["jobs"],
        ["watch", ID],
        ["cancel", ID],
        ["pause", ID],
        ["resume", ID],
        ["retry", ID],
        ["models"],
        ["rollback", "support"],
        ["quarantine"],
        ["keys", "list"],
    ],
)
@pytest.mark.usefixtures("nowhere")
def test_without_a_stack_the_remedy_is_to_start_one_or_to_name_another(runner: CliRunner, command: list[str]) -> None:
    result = invoke(runner, *command)
    assert result.exit_code == 1
    assert "tunestream up" in result.stderr and "TUNESTREAM_API__URL" in result.stderr


@pytest.mark.parametrize("command", [["env"], ["status"], ["logs"]])
def test_commands_of_the_stack_without_one(runner: CliRunner, command: list[str]) -> None:
    result = invoke(runner, *command)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "tunestream up" in result.stderr


def test_down_without_a_stack_is_fine_and_leaves_nothing_behind(runner: CliRunner) -> None:
    result = invoke(runner, "down")
    assert result.exit_code == 0
    assert "nothing was running" in result.stderr
    assert list(Path().iterdir()) == []


def test_up_without_an_unknown_service_lists_the_services(runner: CliRunner) -> None:
    result = invoke(runner, "up", "--without", "training")
    assert result.exit_code == 1
    assert "trainer" in result.stderr


def test_up_with_wrong_settings_names_the_variable_and_starts_nothing(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESTREAM_BUS__PARTITIONS", "many")
    result = invoke(runner, "up", "-d")
    assert result.exit_code == 1
    assert "TUNESTREAM_BUS__PARTITIONS" in result.stderr
    assert not Path(".tunestream/supervisord.conf").exists()


@pytest.mark.usefixtures("nowhere")
def test_submit_names_a_wrong_setting_before_anything_is_sent(runner: CliRunner) -> None:
    Path("rows.jsonl").write_text(GOOD)
    result = invoke(runner, "submit", "rows.jsonl", "--set", "hyperparameters.n_epoch=3")
    assert result.exit_code == 1
    assert "did you mean n_epochs?" in result.stderr


@pytest.mark.usefixtures("nowhere")
def test_submit_of_a_missing_file(runner: CliRunner) -> None:
    result = invoke(runner, "submit", "missing.jsonl")
    assert result.exit_code == 1
    assert "there is no file missing.jsonl" in result.stderr


# --- check --------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check without a tokenizer: the rules for rows need none, and tests of the validator cover the tokens."""
    real = validator.check
    monkeypatch.setattr(validator, "check", lambda path, **given: real(path, **{**given, "base_location": None}))


@pytest.mark.usefixtures("no_tokenizer")
def test_check_of_a_good_file(runner: CliRunner) -> None:
    Path("good.jsonl").write_text(GOOD)
    result = invoke(runner, "check", "good.jsonl")
    assert result.exit_code == 0
    assert "12, usable 12" in result.stdout
    assert "can be trained on" in result.stdout
    assert "not compared with the server: no tokens were counted" in result.stdout


@pytest.mark.usefixtures("no_tokenizer")
def test_check_says_which_rows_are_left_out(runner: CliRunner) -> None:
    Path("good.jsonl").write_text(GOOD + "\n" + GOOD.splitlines()[0] + "\n")
    result = invoke(runner, "check", "good.jsonl")
    assert result.exit_code == 0
    assert "1 are exact duplicates" in result.stdout


@pytest.mark.usefixtures("no_tokenizer")
def test_check_of_a_bad_file_names_line_field_and_remedy(runner: CliRunner) -> None:
    Path("bad.jsonl").write_text(GOOD + '\n{"messages": [{"content": "no role"}]}\n')
    result = invoke(runner, "check", "bad.jsonl")
    assert result.exit_code == 1
    assert "13" in result.stdout
    assert "role" in result.stdout
    assert "cannot be trained on" in result.stdout


@pytest.mark.usefixtures("no_tokenizer")
def test_check_of_a_table_checks_what_would_become_of_it(runner: CliRunner) -> None:
    Path("faq.csv").write_text("question,answer\n" + "".join(f"q{n},a{n}\n" for n in range(12)) + "q,\n")
    result = invoke(runner, "check", "faq.csv")
    assert result.exit_code == 0, result.stderr
    assert "12, usable 12" in result.stdout
    assert "1 have no answer (line 14)" in result.stderr


@pytest.mark.usefixtures("no_tokenizer")
def test_check_as_json_is_json_and_nothing_else(runner: CliRunner) -> None:
    Path("bad.jsonl").write_text(GOOD + "\n{\n")
    result = invoke(runner, "check", "bad.jsonl", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["ok"] is False
    assert report["training"]["problems"][0]["line"] == 13


@pytest.mark.parametrize("configured", [True, False])
def test_check_compares_with_the_render_server_where_there_is_one(
    configured: bool, runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_byte_base(tmp_path / "acme")
    Path("good.jsonl").write_text(GOOD)
    with FakeRender(base, "acme").running() as server:
        if configured:
            monkeypatch.setenv("TUNESTREAM_RENDER__URL", server.url)
        load_settings.cache_clear()
        result = invoke(runner, "check", "good.jsonl", "--base", str(base))
    assert result.exit_code == 0, result.stderr
    said = " ".join(result.stdout.split())
    assert " tokens in 3 epochs; `tunestream estimate` says how long it takes" in said
    assert "tokens/s" not in said, "nobody has measured how fast this machine is"
    if configured:
        assert f"12 turns compared with vLLM {VERSION}: 0 differences" in said
    else:
        assert "not compared with the server: no render server is configured" in said


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    real = validator.check

    def check(path: Path, *, base_location: str | None, **given: Any) -> Report:
        if base_location is not None:
            raise TransientError("the model hub does not answer")
        return real(path, base_location=None, **given)

    monkeypatch.setattr(validator, "check", check)


@pytest.mark.usefixtures("no_hub")
def test_check_without_a_network_checks_all_but_the_tokens(runner: CliRunner) -> None:
    Path("good.jsonl").write_text(GOOD)
    result = invoke(runner, "check", "good.jsonl")
    assert result.exit_code == 0
    assert "tokens are not counted" in result.stderr
    asked_for = invoke(runner, "check", "good.jsonl", "--base", "acme/model")
    assert asked_for.exit_code == 1
    assert "the model hub does not answer" in asked_for.stderr


@pytest.mark.usefixtures("no_tokenizer")
def test_check_refuses_a_base_that_is_not_served_at_once(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ingest will: the job could be trained, but not evaluated."""
    monkeypatch.setenv("TUNESTREAM_MODEL__ID", "acme/tiny")
    monkeypatch.setenv("TUNESTREAM_MODEL__ALLOWED", '["acme/other"]')
    Path("good.jsonl").write_text(GOOD)
    assert invoke(runner, "check", "good.jsonl", "--set", "model=acme/tiny").exit_code == 0
    refused = invoke(runner, "check", "good.jsonl", "--set", "model=acme/other")
    assert refused.exit_code == 1
    assert "only acme/tiny is served" in refused.stderr
    assert "TUNESTREAM_MODEL__ALLOWED" in refused.stderr


@pytest.mark.usefixtures("no_tokenizer")
def test_check_with_another_base_says_that_a_job_would_tune_the_one_of_the_stack(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("good.jsonl").write_text(GOOD)
    assert "a job here tunes" not in invoke(runner, "check", "good.jsonl", "--base", "acme/other").stderr
    monkeypatch.setenv("TUNESTREAM_MODEL__ID", "acme/tiny")
    load_settings.cache_clear()
    asked = invoke(runner, "check", "good.jsonl", "--base", "acme/other")
    assert asked.exit_code == 0
    assert "counted for acme/other, but a job here tunes acme/tiny" in asked.stderr.replace("\n", " ")
    assert "a job here tunes" not in invoke(runner, "check", "good.jsonl").stderr


@pytest.fixture
def tiny_folder(tmp_path: Path) -> str:
    make_tokenizer().save_pretrained(tmp_path / "tiny")
    (tmp_path / "tiny" / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 2048}')
    return str(tmp_path / "tiny")


def test_check_of_a_base_alone_says_what_can_be_trained_on_it(runner: CliRunner, tiny_folder: str) -> None:
    shown = invoke(runner, "check", "--base", tiny_folder)
    assert shown.exit_code == 0
    for words in ("2,048 tokens", "yes (parser hermes)", "<|im_end|>"):
        assert words in shown.stdout
    profile = json.loads(invoke(runner, "check", "--base", tiny_folder, "--json").stdout)
    assert (profile["tool_call_parser"], profile["context"]) == ("hermes", 2048)


def test_what_is_set_of_a_profile_is_for_the_base_of_the_settings(
    runner: CliRunner, tiny_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESTREAM_MODEL__PROFILE", '{"tool_call_parser": null}')
    assert "parser hermes" in invoke(runner, "check", "--base", tiny_folder).stdout
    monkeypatch.setenv("TUNESTREAM_MODEL__ID", "tiny")
    monkeypatch.setenv("TUNESTREAM_MODEL__PATH", tiny_folder)
    load_settings.cache_clear()
    assert "no parser for its calls" in invoke(runner, "check").stdout


# --- watch and chat -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "code", "words"),
    [
        (done(), 0, "promoted: support is"),
        (done(promoted=False), 0, "not promoted"),
        (job("failed") | {"error": {"code": "c", "message": "why", "param": None}}, 1, "c: why"),
        (job("cancelled"), 1, "was cancelled"),
    ],
)
def test_watch_ends_with_the_result_and_its_exit_code(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, last: dict[str, object], code: int, words: str
) -> None:
    monkeypatch.setattr(job_commands, "follow", lambda *args, **more: iter([Snapshot(job(), []), Snapshot(last, [])]))
    result = invoke(runner, "watch", ID)
    assert result.exit_code == code
    assert words in result.output


def test_an_interrupted_watch_says_that_the_job_goes_on(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **more: object) -> object:
        yield Snapshot(job(), [])
        raise KeyboardInterrupt

    monkeypatch.setattr(job_commands, "follow", interrupted)
    result = invoke(runner, "watch", ID)
    assert result.exit_code == 130
    assert "the job goes on" in result.stderr


def test_watch_ends_with_the_link_to_the_trace(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESTREAM_TELEMETRY__JAEGER_URL", "http://jaeger.test")
    snapshot = Snapshot(done() | {"trace_id": "abc"}, [])
    monkeypatch.setattr(job_commands, "follow", lambda *_, **__: iter([snapshot]))
    result = invoke(runner, "watch", ID)
    assert result.exit_code == 0
    assert "trace: http://jaeger.test/trace/abc" in result.stderr


@pytest.mark.usefixtures("nowhere")
def test_chat_without_a_stack(runner: CliRunner) -> None:
    result = invoke(runner, "chat", "support", "hello")
    assert result.exit_code == 1
    assert "tunestream up" in result.stderr


class EchoClient:
    """The part of the OpenAI client that a conversation uses. It answers with the last question."""

    def __init__(self) -> None:
        self.asked: list[list[dict[str, str]]] = []
        self.chat = self.completions = self

    def create(self, *, model: str, messages: list[dict[str, str]], stream: bool, **options: object) -> object:
        self.asked.append(list(messages))
        for word in ("you", " said ", messages[-1]["content"]):
            yield SimpleNamespace(choices=[SimpleNamespace(delta=SimpleNamespace(content=word))])
        yield SimpleNamespace(choices=[])


def test_a_conversation_remembers_its_turns(capsys: pytest.CaptureFixture[str]) -> None:
    client = EchoClient()
    conversation = Conversation(client, "support", "be kind", {})  # type: ignore[arg-type]
    conversation.ask("one")
    assert conversation.ask("two") == "you said two"
    assert capsys.readouterr().out == "you said one\nyou said two\n"
    assert [turn["content"] for turn in client.asked[1]] == ["be kind", "one", "you said one", "two"]


def test_settings_errors_of_every_command_are_one_line(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESTREAM_API__PORT", "high")
    load_settings.cache_clear()
    result = invoke(runner, "jobs")
    assert result.exit_code == 1
    assert "TUNESTREAM_API__PORT" in result.stderr
    assert CliError.__name__ not in result.stderr

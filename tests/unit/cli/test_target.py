"""Which stack a command uses, and what `tunestream env` prints about it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.exports import exports, shell
from cli.main import app
from cli.stack import plan, state
from cli.stack.state import Stack
from cli.target import of_stack, resolve
from cli.terminal import CliError
from shared.settings import Settings

CLIENT_ENV = {
    "API__URL": "http://factory:8080",
    "INFERENCE__URL": "http://factory:8000",
    "INFERENCE__API_KEYS": '["sk-one", "sk-two"]',
    "STORE__ENDPOINT": "https://factory:9000",
    "STORE__ACCESS_KEY": "client",
    "STORE__SECRET_KEY": "client's secret",
    "STORE__CA_FILE": "ca.pem",
    "BUS__BOOTSTRAP": "factory:9094",
    "BUS__SECURITY_PROTOCOL": "SASL_SSL",
    "BUS__SASL_USERNAME": "client",
    "BUS__SASL_PASSWORD": "$(touch owned)",
    "BUS__CA_FILE": "ca.pem",
    "MODEL__ID": "acme/base",
}


def made(folder: Path, api_port: int = 8123) -> Stack:
    """The state of an embedded stack that was started before."""
    stack = plan.make_stack(folder, folder.parent, Settings(), None, free=lambda port: True)
    stack.ports["api"] = api_port
    state.save(stack)
    return stack


@pytest.fixture
def client_env(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a client of a stack on another machine."""
    Path("ca.pem").write_text("")
    for name, value in CLIENT_ENV.items():
        monkeypatch.setenv(f"TUNESTREAM_{name}", value)


def environment(script: str, folder: Path) -> dict[str, str]:
    words = subprocess.run(["/bin/sh", "-c", script + "env -0"], capture_output=True, check=True, env={}, cwd=folder)
    return dict(entry.split("=", 1) for entry in words.stdout.decode().split("\0") if entry)


def test_the_embedded_stack_here_is_found() -> None:
    stack = made(Path(".tunestream").absolute())
    target = resolve(None)
    assert (target.api_url, target.api_key) == ("http://127.0.0.1:8123", stack.api_key)
    assert target.store.secret_key.get_secret_value() == stack.secret_key
    assert target.bus.bootstrap == stack.kafka


@pytest.mark.usefixtures("client_env")
def test_an_address_in_the_environment_beats_the_embedded_stack_here(monkeypatch: pytest.MonkeyPatch) -> None:
    made(Path(".tunestream").absolute())
    made(Path("other").absolute(), 8124)
    monkeypatch.setenv("TUNESTREAM_STATE", "other")
    target = resolve(None)
    assert (target.api_url, target.inference_url) == ("http://factory:8080", "http://factory:8000")
    assert (target.api_key, target.base) == ("sk-one", "acme/base")
    assert (target.store.endpoint, target.store.access_key) == ("https://factory:9000", "client")
    assert (target.bus.bootstrap, target.bus.sasl_username) == ("factory:9094", "client")


@pytest.mark.usefixtures("client_env")
def test_a_stack_that_was_asked_for_beats_the_environment() -> None:
    made(Path("other").absolute(), 8124)
    assert resolve(Path("other")).api_url == "http://127.0.0.1:8124"
    with pytest.raises(CliError, match="no embedded stack in nowhere"):
        resolve(Path("nowhere"))


def test_the_folder_of_the_environment_is_found_and_a_dotenv_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made(Path("other").absolute(), 8124)
    monkeypatch.setenv("TUNESTREAM_STATE", "other")
    Path(".env").write_text("TUNESTREAM_API__URL=http://elsewhere\n")
    assert resolve(None).api_url == "http://127.0.0.1:8124"


def test_exports_of_the_embedded_stack_survive_a_shell(tmp_path: Path) -> None:
    stack = made(tmp_path / "state", 8080)
    stack.base = "it's; $(touch owned) `x`"
    script = shell(exports(of_stack(stack, None), {}))
    found = environment(script, tmp_path)
    for name, value in {
        "OPENAI_BASE_URL": "http://127.0.0.1:8000/v1",
        "OPENAI_API_KEY": stack.api_key,
        "AWS_ENDPOINT_URL": "http://127.0.0.1:8333",
        "AWS_ACCESS_KEY_ID": "tunestream",
        "AWS_SECRET_ACCESS_KEY": stack.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "TUNESTREAM_KAFKA": "127.0.0.1:9092",
        "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
        "TUNESTREAM_API_URL": "http://127.0.0.1:8080",
        "TUNESTREAM_BASE": stack.base,
    }.items():
        assert found[name] == value
    assert "AWS_CA_BUNDLE" not in found and "KAFKA_PASSWORD" not in found
    assert all(line.startswith("export ") and "='" in line for line in script.splitlines())
    assert not (tmp_path / "owned").exists()


@pytest.mark.usefixtures("client_env")
def test_env_of_a_stack_elsewhere_says_how_to_log_in(runner: CliRunner, tmp_path: Path) -> None:
    result = runner.invoke(app, ["env"])
    assert result.exit_code == 0
    found = environment(result.stdout, tmp_path)
    for name, value in {
        "OPENAI_BASE_URL": "http://factory:8000/v1",
        "OPENAI_API_KEY": "sk-one",
        "AWS_ENDPOINT_URL": "https://factory:9000",
        "AWS_SECRET_ACCESS_KEY": "client's secret",
        "AWS_CA_BUNDLE": "ca.pem",
        "TUNESTREAM_KAFKA": "factory:9094",
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "KAFKA_USERNAME": "client",
        "KAFKA_PASSWORD": "$(touch owned)",
        "KAFKA_CA_FILE": "ca.pem",
        "TUNESTREAM_API_URL": "http://factory:8080",
        "TUNESTREAM_BASE": "acme/base",
    }.items():
        assert found[name] == value


@pytest.mark.usefixtures("client_env")
def test_env_keeps_a_strangers_login_of_the_same_broker_only(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_USERNAME", "stranger")
    monkeypatch.setenv("TUNESTREAM_KAFKA", "factory:9094")
    assert "KAFKA_USERNAME='stranger'" in runner.invoke(app, ["env"]).stdout
    monkeypatch.setenv("TUNESTREAM_KAFKA", "another:9092")
    assert "KAFKA_USERNAME='client'" in runner.invoke(app, ["env"]).stdout


def test_env_of_an_embedded_stack_that_is_down_is_an_error(runner: CliRunner) -> None:
    made(Path(".tunestream").absolute())
    result = runner.invoke(app, ["env"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "tunestream up" in result.stderr and "TUNESTREAM_API__URL" in result.stderr

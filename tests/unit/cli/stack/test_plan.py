"""The ports, credentials and base of the embedded stack, and the settings of its services."""

from __future__ import annotations

import importlib.util
import json
import shlex
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.stack import plan, state
from cli.stack.ports import USUAL
from cli.stack.programs import programs
from cli.stack.state import SOCKET_BYTES, Stack
from cli.terminal import CliError
from shared.settings import Settings


def everything_free(port: int) -> bool:
    return True


def stack_of(tmp_path: Path, kept: Stack | None = None, **wanted: str) -> Stack:
    return plan.make_stack(tmp_path / "state", tmp_path, Settings(), kept, free=everything_free, **wanted)  # type: ignore[arg-type]


def settings_inside(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a service that is started with `variables`."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Settings()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_services_get_the_addresses_and_keys_of_the_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = stack_of(tmp_path)
    inside = settings_inside(plan.environment(stack, Settings()), monkeypatch)
    assert inside.store.endpoint == "http://127.0.0.1:8333"
    assert inside.store.secret_key.get_secret_value() == stack.secret_key
    assert inside.bus.bootstrap == "127.0.0.1:9092"
    assert inside.bus.idempotent is False
    assert inside.bus.fetch_max_wait_ms == 250
    assert (inside.ingest.sweep_seconds, inside.ingest.settle_seconds) == (0.2, 0.0)
    assert inside.inference.url == "http://127.0.0.1:8000"
    assert inside.inference.api_keys == (stack.api_key,)
    assert inside.evaluator.api_key is not None
    assert inside.evaluator.api_key.get_secret_value() == stack.api_key
    assert inside.inference.adapter_dir == stack.state / "adapters"


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Says whether vLLM is installed."""
    find = importlib.util.find_spec

    def set_installed(installed: bool) -> None:
        found = find("json") if installed else None
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: found if name == "vllm" else find(name))

    set_installed(True)
    return set_installed


def test_validate_finds_the_render_server_of_the_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vllm: Callable[[bool], None]
) -> None:
    stack = stack_of(tmp_path)
    inside = settings_inside(plan.environment(stack, Settings()), monkeypatch)
    assert inside.render.url == "http://127.0.0.1:8105"
    assert inside.render.port == 8105
    assert "render" in [program.name for program in programs(stack)]


@pytest.mark.parametrize("why", ["vLLM is not installed", "it is left out", "the user has one"])
def test_a_stack_without_a_render_server_has_no_address_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vllm: Callable[[bool], None], why: str
) -> None:
    vllm(why != "vLLM is not installed")
    given = "http://render:8001" if why == "the user has one" else None
    if given:
        monkeypatch.setenv("TUNESTREAM_RENDER__URL", given)
    without = ("render",) if why == "it is left out" else ()
    stack = plan.make_stack(tmp_path, tmp_path, Settings(), None, without=without, free=everything_free)
    assert settings_inside(plan.environment(stack, Settings()), monkeypatch).render.url == given
    assert "render" not in [program.name for program in programs(stack)]


def test_a_stack_of_an_older_version_runs_without_a_render_server(tmp_path: Path) -> None:
    stack = stack_of(tmp_path)
    del stack.ports["render"]
    assert "render" not in [program.name for program in programs(stack)]


def test_no_metrics_are_on_a_port_of_users(tmp_path: Path) -> None:
    stack = stack_of(tmp_path)
    private = {one.name: one.environment.get("TUNESTREAM_HEALTH__PORT") for one in programs(stack)}
    assert (private["inference"], private["api"], private["trainer"]) == ("8106", "8107", "8103")
    assert not {str(stack.ports["inference"]), str(stack.ports["api"])} & set(private.values())


def test_what_the_user_set_stays_but_addresses_of_the_embedded_parts_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(".env").write_text("TUNESTREAM_BUS__FETCH_MAX_WAIT_MS=77\nTUNESTREAM_STORE__ENDPOINT=http://elsewhere:9000\n")
    monkeypatch.setenv("TUNESTREAM_TRAINER__WORK_DIR", "/scratch")
    monkeypatch.setenv("TUNESTREAM_INFERENCE__API_KEYS", '["sk-mine", "sk-other"]')
    monkeypatch.setenv("TUNESTREAM_STORE__SECRET_KEY", 'it\'s "mine"')
    stack = stack_of(tmp_path)
    inside = settings_inside(plan.environment(stack, Settings()), monkeypatch)
    assert inside.bus.fetch_max_wait_ms == 77
    assert inside.trainer.work_dir == Path("/scratch")
    assert inside.inference.api_keys == ("sk-mine", "sk-other")
    assert inside.evaluator.api_key is not None
    assert inside.evaluator.api_key.get_secret_value() == "sk-mine"
    assert inside.store.secret_key.get_secret_value() == 'it\'s "mine"'
    assert inside.store.endpoint == stack.s3_url


def test_a_restart_keeps_ports_credentials_and_base(tmp_path: Path, model: Path) -> None:
    first = stack_of(tmp_path, base=str(model))
    first.ports["kafka"] = 9099
    again = stack_of(tmp_path, kept=first)
    assert again == first


def test_a_port_in_the_settings_beats_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = stack_of(tmp_path)
    monkeypatch.setenv("TUNESTREAM_API__PORT", "9999")
    assert stack_of(tmp_path, kept=first).api_url == "http://127.0.0.1:9999"


def test_two_stacks_never_share_credentials(tmp_path: Path) -> None:
    one, other = stack_of(tmp_path), stack_of(tmp_path)
    assert one.secret_key != other.secret_key
    assert one.api_key != other.api_key


def test_the_base_is_a_folder_under_its_name_or_another(tmp_path: Path, model: Path) -> None:
    named = stack_of(tmp_path, base=str(model))
    assert (named.base, named.base_path) == ("tiny base", str(model))
    renamed = stack_of(tmp_path, base=str(model), base_id="acme/tiny")
    assert (renamed.base, renamed.base_path) == ("acme/tiny", str(model))


def test_the_base_is_a_hub_id(tmp_path: Path) -> None:
    plain = stack_of(tmp_path, base="Qwen/Qwen2.5-0.5B-Instruct")
    assert (plain.base, plain.base_path) == ("Qwen/Qwen2.5-0.5B-Instruct", None)
    renamed = stack_of(tmp_path, base="Qwen/Qwen2.5-0.5B-Instruct", base_id="small")
    assert (renamed.base, renamed.base_path) == ("small", "Qwen/Qwen2.5-0.5B-Instruct")


def test_the_base_of_the_settings_beats_the_last_one(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = stack_of(tmp_path, base=str(model))
    monkeypatch.setenv("TUNESTREAM_MODEL__ID", "acme/other")
    again = stack_of(tmp_path, kept=first)
    assert (again.base, again.base_path) == ("acme/other", None)


@pytest.mark.parametrize("base", ["./missing", "/no/such/folder", "a/b/c"])
def test_a_base_that_is_not_there_is_refused(tmp_path: Path, base: str) -> None:
    with pytest.raises(CliError, match="there is no folder"):
        stack_of(tmp_path, base=base)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CliError, match=r"holds no config\.json"):
        stack_of(tmp_path, base=str(tmp_path / "empty"))


def test_files_with_secrets_are_private_and_read_back(tmp_path: Path) -> None:
    stack = stack_of(tmp_path)
    state.save(stack)
    written = plan.write_environment(stack, plan.environment(stack, Settings()))
    for path in (stack.state / "stack.json", written):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert state.load(stack.state) == stack
    assert f"TUNESTREAM_STORE__SECRET_KEY={stack.secret_key}" in shlex.split(written.read_text())
    assert (stack.state / ".gitignore").read_text() == "*\n"


def test_a_damaged_state_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text(json.dumps({"ports": USUAL}))
    with pytest.raises(CliError, match="damaged") as caught:
        state.load(tmp_path)
    assert "start afresh" in caught.value.remedy


def test_the_control_socket_fits_however_deep_the_state_is(tmp_path: Path) -> None:
    short, deep = Path("/tmp/s"), tmp_path / ("x" * 60) / ("y" * 60)
    assert state.socket_folder(short) == short
    folder = state.socket_folder(deep)
    assert folder.parent == Path(tempfile.gettempdir())
    assert len(str(folder / "supervisor.sock")) <= SOCKET_BYTES
    assert folder != state.socket_folder(deep / "z")


def test_parts_do_not_see_the_credentials_or_proxies_of_the_user() -> None:
    inherited = plan.inherited(
        {"AWS_SESSION_TOKEN": "t", "AWS_ENDPOINT_URL": "u", "HTTP_PROXY": "p", "NO_PROXY": "intra", "HOME": "/h"}
    )
    assert inherited == {
        "HTTP_PROXY": "p",
        "HOME": "/h",
        "NO_PROXY": "intra,127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }

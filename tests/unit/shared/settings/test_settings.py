"""What a user sees after setting a variable wrongly, and secrets that are kept in files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.errors import ConfigError
from shared.settings import Settings, load_settings
from tests.support.environment import remove_settings, settings_read_anew


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only the settings of the test."""
    remove_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)
    with settings_read_anew():
        yield


def loaded(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(f"TUNESTREAM_{name}", value)
    load_settings.cache_clear()
    return load_settings()


def refusal(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(monkeypatch, **variables)
    line = str(caught.value)
    assert "\n" not in line
    return line


# --- names that have changed --------------------------------------------------------------------------------------


def test_an_old_name_is_still_read_and_the_warning_names_the_new_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = loaded(monkeypatch, STAGE__MAX_EPOCHS="7", STAGE__CONCURRENCY="2")

    assert (settings.stage.max_deaths, settings.stage.concurrency) == (7, 2)
    assert "TUNESTREAM_STAGE__MAX_EPOCHS is called TUNESTREAM_STAGE__MAX_DEATHS now" in caplog.text


def test_of_an_old_and_a_new_name_the_new_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded(monkeypatch, STAGE__MAX_EPOCHS="7", STAGE__MAX_DEATHS="8").stage.max_deaths == 8


# --- secrets in files ---------------------------------------------------------------------------------------------


def test_secrets_come_from_files_named_like_their_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "TUNESTREAM_STORE__SECRET_KEY").write_text("from-file\n")
    (secrets / "TUNESTREAM_BUS__SASL_PASSWORD").write_text("pass\n")
    (secrets / "TUNESTREAM_INFERENCE__API_KEYS").write_text("sk-one\nsk-two\n")
    (secrets / "something-else").write_text("of somebody else")
    settings = loaded(
        monkeypatch,
        SECRETS_DIR=str(secrets),
        BUS__SECURITY_PROTOCOL="SASL_PLAINTEXT",
        BUS__SASL_USERNAME="trainer",
    )
    assert settings.store.secret_key.get_secret_value() == "from-file"
    assert settings.bus.sasl_username == "trainer"
    assert settings.bus.sasl_password is not None and settings.bus.sasl_password.get_secret_value() == "pass"
    assert settings.inference.api_keys == ("sk-one", "sk-two")


def test_a_variable_wins_over_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "TUNESTREAM_STORE__SECRET_KEY").write_text("from-file")
    (tmp_path / "TUNESTREAM_STORE__ACCESS_KEY").write_text("also-from-file")
    settings = loaded(monkeypatch, SECRETS_DIR=str(tmp_path), STORE__SECRET_KEY="from-variable")
    assert settings.store.secret_key.get_secret_value() == "from-variable"
    assert settings.store.access_key == "also-from-file"


def test_a_folder_of_secrets_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(monkeypatch, SECRETS_DIR="/no/such") == "TUNESTREAM_SECRETS_DIR: there is no folder /no/such"


def test_a_secret_that_is_no_text_is_refused_without_showing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "TUNESTREAM_STORE__SECRET_KEY").write_bytes(b"canary\xff")
    line = refusal(monkeypatch, SECRETS_DIR=str(tmp_path))
    assert "TUNESTREAM_SECRETS_DIR" in line and "canary" not in line


@pytest.mark.parametrize("given", ['["sk-one", "sk-two"]', "sk-one\nsk-two\n", " sk-one sk-two"])
def test_api_keys_are_a_json_list_or_one_per_line(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded(monkeypatch, INFERENCE__API_KEYS=given).inference.api_keys == ("sk-one", "sk-two")


def test_api_keys_that_are_a_broken_list_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    line = refusal(monkeypatch, INFERENCE__API_KEYS='["canary"')
    assert "TUNESTREAM_INFERENCE__API_KEYS: " in line and "canary" not in line


def test_secrets_are_not_printed_with_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(
        monkeypatch,
        STORE__SECRET_KEY="canary",
        BUS__SECURITY_PROTOCOL="SASL_SSL",
        BUS__SASL_USERNAME="trainer",
        BUS__SASL_PASSWORD="canary",
        INFERENCE__API_KEYS='["canary"]',
        EVALUATOR__API_KEY="canary",
    )
    assert "canary" not in repr(settings) + str(settings)


# --- settings that contradict each other --------------------------------------------------------------------------

SASL = {"BUS__SECURITY_PROTOCOL": "SASL_SSL", "BUS__SASL_USERNAME": "trainer", "BUS__SASL_PASSWORD": "canary"}


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (
            {"BUS__SECURITY_PROTOCOL": "SASL_SSL", "BUS__SASL_PASSWORD": "canary"},
            "TUNESTREAM_BUS__SECURITY_PROTOCOL is SASL_SSL, so TUNESTREAM_BUS__SASL_USERNAME is needed",
        ),
        (
            {"BUS__SECURITY_PROTOCOL": "SASL_PLAINTEXT", "BUS__SASL_USERNAME": "trainer"},
            "TUNESTREAM_BUS__SECURITY_PROTOCOL is SASL_PLAINTEXT, so TUNESTREAM_BUS__SASL_PASSWORD is needed",
        ),
        (
            {**SASL, "BUS__SASL_PASSWORD": ""},
            "TUNESTREAM_BUS__SECURITY_PROTOCOL is SASL_SSL, so TUNESTREAM_BUS__SASL_PASSWORD is needed",
        ),
        (
            {**SASL, "BUS__SECURITY_PROTOCOL": "SSL"},
            "TUNESTREAM_BUS__SASL_USERNAME is set, but TUNESTREAM_BUS__SECURITY_PROTOCOL is SSL: "
            "set it to SASL_SSL (or SASL_PLAINTEXT)",
        ),
        (
            {"BUS__CA_FILE": "here.pem"},
            "TUNESTREAM_BUS__CA_FILE is set, but TUNESTREAM_BUS__SECURITY_PROTOCOL is PLAINTEXT: "
            "set it to SASL_SSL or SSL",
        ),
        (
            {"BUS__SECURITY_PROTOCOL": "SSL", "BUS__CERT_FILE": "here.pem"},
            "TUNESTREAM_BUS__CERT_FILE and TUNESTREAM_BUS__KEY_FILE belong together: set both",
        ),
        (
            {"BUS__SECURITY_PROTOCOL": "SSL", "BUS__CA_FILE": "gone.pem"},
            "TUNESTREAM_BUS__CA_FILE: there is no file gone.pem that this process may read",
        ),
        (
            {"STORE__ENDPOINT": "https://minio:9000", "STORE__CA_FILE": "gone.pem"},
            "TUNESTREAM_STORE__CA_FILE: there is no file gone.pem that this process may read",
        ),
        (
            {"STORE__CA_FILE": "here.pem"},
            "TUNESTREAM_STORE__CA_FILE is set, but TUNESTREAM_STORE__ENDPOINT is no https:// address: give one",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_one_line(
    variables: dict[str, str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here.pem").touch()
    assert refusal(monkeypatch, **variables) == f"wrong settings: {line}"

"""What the model hub does wrong is told apart from what is wrong with a base."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from shared.base import hub
from shared.base.reading import read_base
from shared.errors import ConfigError, InputError, TransientError


def answered(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    error = kind.__new__(kind, "x")
    error.response = SimpleNamespace(status_code=status)  # type: ignore[assignment]
    return error


OUTAGES: list[Exception] = [
    answered(HfHubHTTPError, 500),
    answered(HfHubHTTPError, 503),
    answered(HfHubHTTPError, 429),
    httpx.ConnectError("x"),
    httpx.RemoteProtocolError("x"),
    ConnectionResetError(),
    TimeoutError(),
    LocalEntryNotFoundError("x"),
]


@pytest.mark.parametrize("error", OUTAGES, ids=repr)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_hub_that_breaks_is_an_outage(error: Exception, wrapped: bool) -> None:
    if wrapped:
        outer = OSError("Can't load the configuration")
        outer.__cause__ = error
        error = outer
    found = hub.trouble(error, "acme/tiny")
    assert isinstance(found, TransientError)
    assert "acme/tiny" in str(found) and "HF_ENDPOINT" in str(found) and "\n" not in str(found)


@pytest.mark.parametrize(
    "error", [answered(GatedRepoError, 403), answered(HfHubHTTPError, 401), answered(HfHubHTTPError, 403)], ids=repr
)
def test_a_hub_that_refuses_our_token_is_a_setting(error: Exception) -> None:
    found = hub.trouble(error, "acme/tiny")
    assert isinstance(found, ConfigError) and "HF_TOKEN" in str(found)


@pytest.mark.parametrize(
    "error",
    [
        answered(RepositoryNotFoundError, 401),
        answered(RepositoryNotFoundError, 404),
        EntryNotFoundError("config.json"),
        ValueError("no model type"),
        FileNotFoundError("config.json"),
    ],
    ids=repr,
)
def test_what_is_wrong_with_the_base_is_not_the_hubs_fault(error: Exception) -> None:
    assert hub.trouble(error, "acme/tiny") is None


def test_a_full_disk_is_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    found = hub.trouble(OSError(errno.ENOSPC, "No space left on device"), "acme/tiny")
    assert isinstance(found, TransientError) and "HF_HOME" in str(found)


def test_who_works_offline_on_purpose_meets_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: True)
    for error in (OfflineModeIsEnabled("x"), LocalEntryNotFoundError("x")):
        assert hub.trouble(error, "acme/tiny") is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ReadError("broke in the middle"), TransientError),
        (answered(GatedRepoError, 403), ConfigError),
        (OSError(errno.ENOSPC, "x"), TransientError),
        (answered(RepositoryNotFoundError, 404), InputError),
        (ZeroDivisionError(), ZeroDivisionError),
    ],
    ids=repr,
)
def test_reading_a_base_raises_by_cause(
    error: Exception, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(hub, "answers", lambda repository: True)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(kind):
        read_base("acme/tiny", "acme/tiny")

"""Fixtures for tests of the commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.environment import EVERY_CLIENTS, remove_settings, settings_read_anew


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty directory, without the settings of the person who runs the tests."""
    remove_settings(monkeypatch, EVERY_CLIENTS)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with settings_read_anew():
        yield


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()

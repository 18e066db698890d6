from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shared.settings import load_settings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty directory and no settings of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith(("TUNESTREAM_", "AWS_", "OPENAI_", "KAFKA_")):
            monkeypatch.delenv(name)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()

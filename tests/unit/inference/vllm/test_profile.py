"""The profile that the service makes of its base before it starts vLLM."""

from __future__ import annotations

import json
import logging
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from services.inference.vllm import child
from services.inference.vllm.profile import profile_of
from shared.settings import ModelSettings, Settings
from tests.support.data.micro_base import make_tokenizer
from tests.unit.inference.vllm.test_vllm_server import CPU_BUILD, install


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 128}))
    return tmp_path


async def test_it_is_made_in_a_process_of_its_own_with_what_is_set(folder: Path) -> None:
    found = await profile_of(ModelSettings(id="acme/tiny", path=str(folder)))
    assert found is not None and (found.tool_call_parser, found.context) == ("hermes", 128)
    off = {"id": "acme/tiny", "path": str(folder), "profile": {"tool_call_parser": None}}
    changed = await profile_of(ModelSettings.model_validate(off))
    assert changed is not None and changed.tool_call_parser is None


async def test_a_base_that_cannot_be_read_is_served_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert await profile_of(ModelSettings(id="acme/tiny", path=str(tmp_path))) is None
    [record] = caplog.records
    assert "acme/tiny cannot be loaded" in record.reason  # type: ignore[attr-defined]


async def test_a_base_that_takes_too_long_is_served_all_the_same(folder: Path) -> None:
    assert await profile_of(ModelSettings(id="acme/tiny", path=str(folder)), patience=0.0) is None


async def test_the_supervised_server_is_started_with_the_options_of_its_base(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, CPU_BUILD)
    settings = Settings.model_validate({"model": {"id": "acme/tiny", "path": str(folder)}})
    async with httpx.AsyncClient() as client:
        server = child.supervised(client, settings)
        assert server.prepare is not None
        await server.prepare()
        assert ("--tool-call-parser", "hermes") in pairwise(server.command(8123))

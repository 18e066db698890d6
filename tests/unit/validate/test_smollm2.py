"""The bundled datasets on SmolLM2, whose chat template knows no tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples import support
from examples.tasks import tools
from services.validate.domain.report import Report
from services.validate.tokenizer import load
from tests.support.data.smollm2 import tokenizer_folder
from tests.unit.validate.conftest import Examine

pytestmark = pytest.mark.torch  # making the folder needs it


@pytest.fixture(scope="module")
def smollm2() -> Path:
    return tokenizer_folder()


def report(run: Examine, base: Path, rows: list[dict]) -> Report:
    return run(rows, tokenizer=load(str(base), "smollm2")).report


def test_tool_calls_are_refused_with_line_and_remedy(run: Examine, smollm2: Path) -> None:
    refused = report(run, smollm2, list(tools.rows(20)))
    assert not refused.ok and refused.failure is not None
    assert refused.failure.code == "invalid_training_file"
    assert "Line 1, messages: the chat template of smollm2 refuses this conversation" in refused.failure.message
    assert "it leaves out tools[0], so the server's model would not see it" in refused.failure.message
    assert "choose another base" in refused.failure.message
    assert refused.training.errors == 20


def test_calls_without_tools_are_refused_too(run: Examine, smollm2: Path) -> None:
    """Without tools the prompt holds all that the row does, but there would be nothing to learn."""
    calling = [{"messages": row["messages"][:3]} for row in tools.rows(40, kinds=(tools.status,))]
    refused = report(run, smollm2, calling)
    assert refused.training.errors == 40
    assert "leaves out tool_calls" in refused.training.problems[0].message


def test_plain_chats_are_not(run: Examine, smollm2: Path) -> None:
    accepted = report(run, smollm2, list(support.rows(40)))
    assert accepted.ok, accepted.failure
    assert accepted.training.tokens is not None

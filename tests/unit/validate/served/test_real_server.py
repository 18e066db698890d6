"""vLLM's own render server on real bases: nothing that can be trained is served otherwise, and a template that was
changed between training and serving is found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from examples import tiny_base
from services.validate.check import check
from services.validate.domain.content import Row
from services.validate.domain.findings import Finding
from services.validate.domain.report import Report, ServedCheck
from services.validate.served.client import RenderServer
from services.validate.served.compare import Asked, compare
from services.validate.tokenizer import load
from shared.events import JobSpec
from shared.settings import RenderSettings, ValidationSettings
from tests.families.kinds import KINDS
from tests.support.data import smollm2
from tests.support.render import BASE_ID, render_server
from tests.support.user import ROOT
from tests.unit.validate.conftest import completions, preferences

pytestmark = pytest.mark.torch  # vLLM imports torch

SUPPORT = ROOT / "examples" / "support.jsonl"
PARSERS = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")


@pytest.fixture(scope="module")
def tiny() -> Path:
    return tiny_base.ensure(ROOT / tiny_base.DEFAULT_DIR, quiet=True)


@pytest.fixture(scope="module")
def server(tiny: Path) -> Iterator[str]:
    with render_server(tiny, *PARSERS) as url:
        yield url


@pytest.fixture(scope="module")
def smol() -> Iterator[tuple[Path, str]]:
    folder = smollm2.tokenizer_folder()
    with render_server(folder) as url:
        yield folder, url


def checked(base: Path, url: str, **render: Any) -> Report:
    settings = RenderSettings(url=url, **render)
    return check(
        SUPPORT,
        spec=JobSpec(),
        base_location=str(base),
        limits=ValidationSettings(),
        render=settings,
        base=BASE_ID,
    )


def kinds_compared(base: Path, url: str) -> tuple[ServedCheck, int]:
    """Every kind of conversation that the base can be trained on; and how many these are."""
    tokenizer = load(str(base), BASE_ID)
    rows = [
        Row(line, {"messages": messages, **({"tools": tools} if tools else {})}, "chat")
        for line, (messages, tools) in enumerate(KINDS.values(), start=1)
    ]
    rows += [Row(101, completions(1)[0], "completion"), Row(102, preferences(1)[0], "preference")]
    (measured,) = tokenizer.measure([rows])
    accepted = [row for row, found in measured if not isinstance(found, Finding)]
    server = RenderServer(url, BASE_ID, Event())
    asked = [Asked("training", row) for row in accepted]
    try:
        found = compare(
            asked,
            tokenizer,
            server,
            version=server.version(1.0),
            stop_at_first=False,
            advance=lambda role, rows: None,
        )
    finally:
        server.close()
    return found, len(accepted)


def test_the_demo_is_trained_as_it_is_served(tiny: Path, server: str) -> None:
    report = checked(tiny, server)
    assert report.ok and report.served is not None
    assert (report.served.rows, report.served.turns, report.served.differences) == (560, 560, 0)
    assert (report.served.not_asked, report.served.partly) == (None, ())


def test_every_kind_of_conversation_that_is_accepted_is_served_alike(tiny: Path, server: str) -> None:
    found, accepted = kinds_compared(tiny, server)
    assert (found.rows, found.differences, found.first) == (accepted, 0, None)
    assert found.not_asked is None
    assert accepted > len(KINDS) / 2


def test_a_template_that_was_changed_before_serving_is_found(tiny: Path, tmp_path: Path) -> None:
    template = (tiny / "chat_template.jinja").read_text()
    changed = tmp_path / "changed.jinja"
    changed.write_text(
        template.replace("'<|im_start|>assistant\\n' -}}{%- endif", "'<|im_start|>assistant ' -}}{%- endif")
    )
    assert changed.read_text() != template
    with render_server(tiny, "--chat-template", str(changed)) as url:
        report = checked(tiny, url)
        warned = checked(tiny, url, policy="warn", rows=50)
    assert report.failure is not None and report.failure.code == "not_as_served"
    assert "Line 1, messages[2]" in report.failure.message
    assert "the server has ' ', the training has '\\n'" in report.failure.message
    assert warned.ok and warned.served is not None
    assert (warned.served.rows, warned.served.turns, warned.served.differences) == (50, 50, 50)


def test_smollm2_is_trained_as_it_is_served(smol: tuple[Path, str]) -> None:
    base, url = smol
    report = checked(base, url, rows=100)
    assert report.ok and report.served is not None
    assert (report.served.rows, report.served.turns, report.served.differences) == (100, 100, 0)
    found, accepted = kinds_compared(base, url)
    assert (found.rows, found.differences, found.first) == (accepted, 0, None)

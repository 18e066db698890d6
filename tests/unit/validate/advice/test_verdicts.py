"""The verdict on the guide's cases, and on five bundled datasets."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from examples.support import jsonl
from examples.tasks.advice import DATASETS
from services.validate import advising
from services.validate.advising import samples_of
from services.validate.asking import measure
from services.validate.check import check
from services.validate.domain import advice
from services.validate.domain.advice import Advice, Asked, Facts, Measured, Sample, advise, facts_of
from services.validate.domain.report import Report
from shared.events import JobSpec
from shared.settings import ValidationSettings
from tests.support.fakes.copying_model import CopyingModel
from tests.support.fakes.servers import Server

CASES: list[dict[str, Any]] = json.loads(Path(advice.__file__).with_name("matrix.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_the_decision_matrix(case: dict[str, Any]) -> None:
    measured = Measured.model_validate(case["measured"]) if "measured" in case else None
    found = advise(Facts.model_validate(case["facts"]), Asked.model_validate(case.get("asked", {})), measured)
    assert found.verdict == case["verdict"]
    first = found.reasons[0]
    assert first.speaks_for in found.verdict.split(" + ")
    assert any(digit in first.words for digit in "0123456789") or "sources" in first.words or "change" in first.words


def test_the_matrix_has_eight_cases_and_every_verdict() -> None:
    assert len(CASES) == 8
    assert {case["verdict"] for case in CASES} == {
        "fine-tune",
        "prompt",
        "retrieve",
        "more data",
        "fine-tune + retrieve",
    }


def rows_of(name: str, folder: Path) -> list[Sample]:
    file = folder / f"{name}.jsonl"
    file.write_text(jsonl(DATASETS[name]()))
    return samples_of(file, spec=JobSpec(), limits=ValidationSettings())[0]


def from_file(name: str, folder: Path) -> Advice:
    return advise(facts_of(rows_of(name, folder)))


@pytest.mark.parametrize(
    ("name", "verdict", "number"),
    [
        ("fine_tune", "fine-tune", "240"),
        ("too_few", "more data", "12"),
        ("changing_facts", "retrieve", "100%"),
        ("contradictory", "more data", "60%"),
    ],
)
def test_what_the_file_alone_says(name: str, verdict: str, number: str, tmp_path: Path) -> None:
    found = from_file(name, tmp_path)
    assert found.verdict == verdict
    assert number in found.reasons[0].words
    assert len(found.not_measured) == 4


async def test_few_shots_that_do_are_enough(tmp_path: Path) -> None:
    rows = rows_of("few_shot_enough", tmp_path)
    facts, model = facts_of(rows), CopyingModel()
    async with Server(model.app()).running() as server:
        found = await asyncio.to_thread(
            measure, rows, facts, endpoint=f"{server.url}/v1", model="copy", examples=100, shots=3
        )
    assert found.zero_shot.high < 0.1 and found.few_shot is not None
    assert found.few_shot.low >= 0.9, "the nearest example has the label"
    decided = advise(facts, None, found)
    assert decided.verdict == "prompt" and "100 rows" in decided.reasons[0].words
    assert advise(facts, Asked(requests_per_day=50_000), found).verdict == "fine-tune"


async def test_a_base_that_cannot_do_it_leaves_room_for_a_training(tmp_path: Path) -> None:
    rows = rows_of("fine_tune", tmp_path)
    facts, model = facts_of(rows), CopyingModel()
    async with Server(model.app()).running() as server:
        found = await asyncio.to_thread(measure, rows, facts, endpoint=f"{server.url}/v1", model="copy", examples=20)
    decided = advise(facts, None, found)
    assert decided.verdict == "fine-tune"
    assert any("only json_fields" in reason.words for reason in decided.reasons)


def test_the_report_of_a_file_holds_the_advice(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    for name, verdict in (("contradictory", "more data"), ("fine_tune", "fine-tune")):
        file.write_text(jsonl(DATASETS[name]()))
        report = check(file, spec=JobSpec(), base_location=None, limits=ValidationSettings())
        assert report.advice is not None and report.advice.verdict == verdict
        assert Report.model_validate_json(report.model_dump_json()) == report


def test_of_many_rows_an_even_share_is_looked_at_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advising, "IN_A_REPORT", 50)
    file = tmp_path / "rows.jsonl"
    file.write_text(jsonl(DATASETS["fine_tune"]()))
    found = check(file, spec=JobSpec(), base_location=None, limits=ValidationSettings()).advice
    assert found is not None and (found.facts.rows, found.facts.of) == (48, 240)
    assert "48 of the 240 rows" in found.not_measured[0]
    monkeypatch.setattr(advising, "MOST_BYTES", file.stat().st_size // 10)
    found = check(file, spec=JobSpec(), base_location=None, limits=ValidationSettings()).advice
    assert found is not None and found.facts.rows <= 24


def test_an_earlier_version_shows_how_fast_the_answers_change(tmp_path: Path) -> None:
    new, old = (rows_of(name, tmp_path) for name in ("changing_facts", "changing_facts_before"))
    changed = facts_of(new, old)
    assert (changed.changed, changed.compared) == (1.0, 200)
    assert facts_of(new, new).changed == 0
    assert facts_of(new, rows_of("fine_tune", tmp_path)).changed is None
    words = [reason.words for reason in advise(changed).reasons]
    assert any("100% of 200 questions" in each for each in words)
    assert not any("how fast" in each for each in advise(changed).not_measured)


@pytest.mark.parametrize(
    ("asked", "unknown"),
    [
        ({"requests_per_day": 5}, "--requests-per-day"),
        ({"needs_sources": False}, "--needs-sources"),
        ({"changes": "yearly"}, "--changes"),
    ],
)
def test_what_the_user_says_is_not_unknown_any_more(asked: dict[str, Any], unknown: str) -> None:
    facts = Facts(rows=200, kind="free text", patterns=200)
    assert any(unknown in each for each in advise(facts).not_measured)
    assert not any(unknown in each for each in advise(facts, Asked.model_validate(asked)).not_measured)

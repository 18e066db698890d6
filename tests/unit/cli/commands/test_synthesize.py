"""Synthesis from the command line, as a process of its own that is killed, stopped and started again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cli.main import app
from services.ingest.domain.synthesis import results
from services.ingest.domain.synthesis.history import ENTRY, Answered, Asked
from tests.support.fakes.language_model import FakeModel, serve
from tests.unit.ingest.synthesis.world import run, spec, writer

ROWS = 200
REPOSITORY = Path(__file__).parents[4]


def write_spec(url: str = "http://127.0.0.1:9", count: int = 40, **changes: Any) -> Path:
    values = spec(url, count=count, concurrency=8, **changes).model_dump(mode="json", exclude_defaults=True)
    path = Path("support.synthesis.yaml")
    path.write_text(yaml.safe_dump(values))
    return path


async def synthesize(
    *words: str, until: Callable[[], bool] = lambda: False, kill: signal.Signals = signal.SIGKILL
) -> tuple[int, str]:
    """Run the command in a process of its own; send it `kill` as soon as `until` is true. Returns the exit code and
    what it said."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", "synthesize", *words,
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said = asyncio.create_task(process.communicate())
    while not said.done() and not until():
        await asyncio.wait({said}, timeout=0.005)
    if not said.done():
        process.send_signal(kill)
    output, _ = await said
    assert process.returncode is not None
    return process.returncode, output.decode()


def bodies(model: FakeModel) -> Counter[str]:
    return Counter(json.dumps(body, sort_keys=True) for body in model.requests)


def entries() -> list[Any]:
    lines = Path("support.synthesis.journal").read_bytes().split(b"\n")[:-1]
    return [ENTRY.validate_json(line) for line in lines]


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("support.jsonl").read_text().splitlines()]


async def test_a_synthesis_that_is_killed_half_way_asks_for_nothing_twice_that_was_answered() -> None:
    model = FakeModel({"strong": writer})
    async with serve(model) as url:
        path = write_spec(url, ROWS)
        half = 3 * ROWS // 2
        code, _ = await synthesize(str(path), until=lambda: len(model.requests) >= half)
        assert code == -signal.SIGKILL
        assert not Path("support.jsonl").exists()
        answered = {entry.id for entry in entries() if isinstance(entry, Answered)}
        assert half - 8 <= len(answered) < 3 * ROWS

        code, said = await synthesize(str(path))
        assert code == 0, said
    asked = Counter(entry.id for entry in entries() if isinstance(entry, Asked))
    assert {asked[id] for id in answered} == {1}
    # the server knows nothing of the journal: only what was under way at the kill came twice
    twice = sum(count - 1 for count in bodies(model).values())
    assert twice <= 8
    assert max(bodies(model).values()) <= 2
    assert len(rows()) == ROWS
    assert [row["metadata"]["slot"] for row in rows()] == [str(slot) for slot in range(ROWS)]
    report = json.loads(Path("support.synthesis.report.json").read_text())
    assert (report["end"], report["made"]) == ("complete", ROWS)
    assert report["requests"] >= len(model.requests)
    assert report["requests_without_reply"] <= 8

    # an unbroken run makes the same rows
    _, journal = await run(FakeModel({"strong": writer}), count=ROWS, concurrency=8)
    assert rows() == [json.loads(line) for line in results.rows(spec(count=ROWS), journal.history)]


@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGINT])
async def test_a_synthesis_that_is_stopped_spends_no_request_twice(kill: signal.Signals) -> None:
    model = FakeModel({"strong": writer})
    async with serve(model) as url:
        path = write_spec(url)
        code, said = await synthesize(str(path), until=lambda: len(model.requests) >= 40, kill=kill)
        assert code == 130, said
        assert "run the same command to go on" in said
        made = len(rows())
        assert 0 < made < 40
        code, _ = await synthesize(str(path))
    assert code == 0
    assert len(rows()) == 40
    assert set(bodies(model).values()) == {1}
    assert len(model.requests) == 3 * 40


async def test_the_server_may_be_away_for_a_while() -> None:
    model = FakeModel({"strong": writer}, failures=[(503, {"retry-after": "0.1"})] * 5)
    async with serve(model) as url:
        code, said = await synthesize(str(write_spec(url, judge=None)))
    assert code == 0, said
    assert "waiting: http://127.0.0.1" in said
    assert "answers 503 (try later)" in said
    assert len(rows()) == 40


# --- without a server -------------------------------------------------------------------------------------------------


def invoke(*words: str) -> Any:
    return CliRunner().invoke(app, ["synthesize", *words])


def test_a_dry_run_shows_the_plan_and_the_budget_and_asks_nobody() -> None:
    result = invoke(str(write_spec()), "--dry-run")
    assert result.exit_code == 0, result.output
    for part in ("late parcel", "Refunds take 5 days.", "row 1, query", "row 1, answer", "row 1, judge"):
        assert part in result.output
    assert "at most the budget: 100.00" in result.output
    assert sorted(path.name for path in Path().iterdir()) == ["support.synthesis.yaml"]


def test_a_key_that_is_not_set_is_named() -> None:
    result = invoke(str(write_spec(endpoint={"base_url": "http://127.0.0.1:9/v1", "key": "STRONG_KEY"})))
    assert result.exit_code == 1
    assert "STRONG_KEY is not set" in result.output


def test_a_file_that_no_synthesis_has_made_is_not_written_over() -> None:
    Path("support.jsonl").write_text("mine\n")
    result = invoke(str(write_spec()))
    assert result.exit_code == 1
    assert "name another file with --out" in result.output
    assert Path("support.jsonl").read_text() == "mine\n"


def test_a_folder_that_is_missing_is_named() -> None:
    result = invoke(str(write_spec()), "--out", "none/a.jsonl")
    assert result.exit_code == 1
    assert "there is no folder none" in result.output


def test_seeds_that_are_missing_are_named() -> None:
    result = invoke(str(write_spec(seeds="seeds.jsonl")))
    assert result.exit_code == 1
    assert "seeds.jsonl cannot be read: No such file" in result.output

"""200 rows by a real vLLM, killed half-way (`kill -9`) and resumed: vLLM's own counters say what was asked.

The tiny base writes nonsense, which does not matter here; it is asked for short texts, and for many attempts, because
what has no end within its tokens is refused.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from services.ingest.domain.synthesis.history import ENTRY, Answered, Asked
from shared.settings import Settings
from tests.e2e.conftest import BASE
from tests.support.vllm_server import VllmServer

pytestmark = pytest.mark.timeout(3600)

REPOSITORY = Path(__file__).parents[2]
ROWS, AT_A_TIME = 200, 16
SPEC: dict[str, Any] = {
    "task": "answers customers of a shop",
    "scenarios": ["a late parcel", "a refund", "a locked account", "an order with a mistake"],
    "vary": {"persona": ["a customer"], "difficulty": ["easy"], "length": ["one short sentence"]},
    "count": ROWS,
    "model": "tiny",
    "concurrency": AT_A_TIME,
    "budget": {"tokens": 20_000_000},
    "max_tokens": {"query": 96, "answer": 96},
    "judge": None,
    "near_duplicates": None,
    "attempts": 20,
}


@pytest.fixture
async def vllm(tmp_path: Path) -> AsyncIterator[VllmServer]:
    assert (BASE / "config.json").is_file(), "no tiny base: python -m examples.tiny_base"
    settings = {"model": {"id": "tiny", "path": str(BASE)}, "vllm": {"max_model_len": 1024, "cpu_kv_cache_gib": 1}}
    server = VllmServer(Settings.model_validate(settings), tmp_path / "vllm.log")
    try:
        await server.ready(900)
        yield server
    finally:
        server.stop()


async def begun_and_finished(vllm: VllmServer) -> tuple[int, int]:
    """How many requests vLLM has finished, and how many of them it finished because their client was gone."""
    async with httpx.AsyncClient(base_url=vllm.url) as http:
        text = (await http.get("/metrics")).text
    found = re.findall(r'^vllm:request_success_total\{.*finished_reason="(\w+)".*\} (\S+)$', text, re.MULTILINE)
    counts = {reason: int(float(count)) for reason, count in found}
    return sum(counts.values()), counts.get("abort", 0)


async def synthesize(spec: Path, half: int | None) -> int:
    """Run the command, and kill it as soon as the journal has `half` rows. Returns its exit code."""
    journal = spec.with_name("rows.synthesis.journal")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", "synthesize", str(spec), "--out", str(spec.with_name("rows.jsonl")),
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    ended = asyncio.create_task(process.wait())
    while not ended.done():
        await asyncio.wait({ended}, timeout=0.2)
        if half is not None and journal.exists() and journal.read_bytes().count(b'"type":"kept"') >= half:
            process.send_signal(signal.SIGKILL)
            break
    return await ended


async def test_200_rows_killed_half_way_ask_vllm_for_nothing_twice(vllm: VllmServer, tmp_path: Path) -> None:
    spec = tmp_path / "rows.synthesis.yaml"
    spec.write_text(yaml.safe_dump(SPEC | {"endpoint": {"base_url": f"{vllm.url}/v1"}}))
    journal = tmp_path / "rows.synthesis.journal"

    assert await synthesize(spec, ROWS // 2) == -signal.SIGKILL
    before = entries(journal)
    answered = {entry.id for entry in before if isinstance(entry, Answered)}
    assert await synthesize(spec, None) == 0

    asked = Counter(entry.id for entry in entries(journal) if isinstance(entry, Asked))
    finished, aborted = await begun_and_finished(vllm)
    report = json.loads((tmp_path / "rows.synthesis.report.json").read_text())
    print(json.dumps(report, indent=2))  # noqa: T201
    print(  # noqa: T201
        f"killed after {len(answered)} answers; vLLM finished {finished} requests, {aborted} of them for nobody"
    )
    assert {asked[id] for id in answered} == {1}
    assert report["made"] == ROWS
    # what vLLM did beyond the replies in the journal was under way at the kill
    replies = sum(isinstance(entry, Answered) for entry in entries(journal))
    assert replies <= finished <= replies + AT_A_TIME
    assert report["requests_without_reply"] <= AT_A_TIME


def entries(journal: Path) -> list[Any]:
    return [ENTRY.validate_json(line) for line in journal.read_bytes().split(b"\n")[:-1]]

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.ingest.sources.limits import Limits
from services.ingest.sources.mine import mine
from services.ingest.sources.report import MiningReport
from shared.events import Source


@dataclass
class Mined:
    """What a file became."""

    rows: list[dict[str, Any]]
    report: MiningReport

    @property
    def said(self) -> str:
        return " ".join(self.report.sentences())

    def turns(self, row: int = 0) -> list[tuple[str, Any]]:
        return [(message["role"], message.get("content")) for message in self.rows[row]["messages"]]


Mine = Callable[..., Mined]


@pytest.fixture
def run(tmp_path: Path) -> Mine:
    """Mine a file: its name, its content, and the settings of `source`."""

    def call(name: str, data: bytes | str, limits: Limits | None = None, **source: Any) -> Mined:
        path, out = tmp_path / name, tmp_path / "rows.jsonl"
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        report = mine(path, out, source=Source.model_validate(source) if source else None, limits=limits)
        return Mined([json.loads(line) for line in out.read_text().splitlines()], report)

    return call


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)

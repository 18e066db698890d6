"""A run that is tried again does not encode its rows again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from services.trainer.domain.plan import Plan
from services.trainer.engine import run
from services.trainer.engine.data.dataset import Encoder
from services.trainer.engine.report.reporter import Reporter
from tests.support.data.micro_base import support_rows, write_rows

pytestmark = pytest.mark.torch


def test_rows_are_encoded_once_for_all_attempts(
    make_plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    encode = Encoder.read

    def counted(encoder: Encoder, path: Path, *more: Any) -> Any:
        read.append(path.name)
        return encode(encoder, path, *more)

    monkeypatch.setattr(Encoder, "read", counted)
    plan: Plan = make_plan(encoded=str(tmp_path / "encoded"))
    previews, hyperparameters = [], []
    for attempt in ("first", "second"):
        out = tmp_path / attempt
        out.mkdir()
        run._prepare(plan, out, Reporter(out, events=False), torch.device("cpu"), None)
        previews.append((out / "preview.txt").read_text())
        hyperparameters.append((out / "hyperparameters.json").read_text())
    assert read == ["train.jsonl", "valid.jsonl"]
    assert previews[0] == previews[1] and hyperparameters[0] == hyperparameters[1]
    write_rows(Path(plan.train), support_rows(41))
    run._prepare(plan, tmp_path / "second", Reporter(tmp_path / "second", events=False), torch.device("cpu"), None)
    assert read == ["train.jsonl", "valid.jsonl", "train.jsonl"]


def test_another_folder_for_tokens_is_no_other_run(make_plan: Any) -> None:
    assert make_plan(encoded="a").identity() == make_plan().identity()

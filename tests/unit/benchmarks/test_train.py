"""The benchmark of training: its documents, its clock, and what becomes of a mode that cannot be measured."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from benchmarks import train
from benchmarks.rivals.clock import Clock
from benchmarks.rivals.work import Work
from services.trainer.domain.plan import Plan
from tests.support.data.micro_base import make_base

pytestmark = pytest.mark.torch


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "base", tmp_path, batch=4, warm_up=1, steps=2)


def asked(**changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"limit": 60, "shape": "tiny", "set": [], **changes})


@pytest.mark.parametrize("real", [False, True])
def test_all_see_the_same_documents_of_the_same_lengths(work: Work, real: bool):
    """On random weights a letter is a token; on a real base a word is."""
    if real:
        make_base(work.base)
    train.prepare(work, "tiny")
    tokenizer = AutoTokenizer.from_pretrained(work.base)
    documents, lengths = work.documents(tokenizer), work.lengths()
    assert [len(document) for document in documents] == lengths
    rows = [json.loads(line) for line in work.rows.read_text().splitlines()]
    assert len(rows) == 4 * (3 + 1) < len(documents)
    sides = [[tokenizer(row[side])["input_ids"] for side in ("prompt", "completion")] for row in rows]
    assert [prompt + completion for prompt, completion in sides] == [each[:-1] for each in documents[: len(rows)]]
    assert {len(prompt) for prompt, _ in sides} == {8}


def test_tokens_per_second_are_those_of_the_steps_after_the_warm_up(monkeypatch: pytest.MonkeyPatch):
    times = iter([10.0, 12.0, 16.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    clock = Clock(warm_up=1, steps=2)
    for tokens in (1000, 30, 60):
        clock.step(tokens)
    found = clock.figures()
    assert (found["tokens_per_second"], found["tokens_per_step"]) == (15, 45)
    assert found["seconds_of_steps"] == [2, 4]


def test_who_begins_the_next_step_before_a_mark_does_so_before_both(monkeypatch: pytest.MonkeyPatch):
    waited: list[bool] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.synchronize", lambda: waited.append(True))
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda: 2**30)
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda: None)
    times = iter([10.0, 12.0, 16.0, 17.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    clock = Clock(warm_up=1, steps=2, known=True)
    for tokens in (1000, 30, 60):
        clock.step(tokens)
    with pytest.raises(RuntimeError, match="3 steps instead of 4"):
        clock.figures()
    clock.step(2000)
    assert clock.figures()["tokens_per_second"] == 15
    assert not waited


def test_a_training_that_ends_too_soon_has_no_figures():
    clock = Clock(warm_up=1, steps=2)
    clock.step(1)
    with pytest.raises(RuntimeError, match="1 steps instead of 3"):
        clock.figures()


@pytest.mark.parametrize("mode", ["nf4", "bf16", "lean"])
def test_our_modes_are_plans_that_the_engine_takes(mode: str, work: Work):
    plan = Plan.model_validate(train.plan_of(mode, work, ["lora.r=32", "hyperparameters.over_length=fail"]))
    assert (plan.lora.r, plan.hyperparameters.over_length, plan.lean) == (32, "fail", mode == "lean")


def test_a_rival_that_is_not_installed_is_a_row_that_says_so(work: Work, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "unsloth", None)
    figures = {"unsloth": train.measured("unsloth", work, asked())}
    assert train.line("unsloth", figures, 1.0).split(None, 1)[1] == "not installed (unsloth)"


def test_a_mode_that_hangs_costs_its_limit_and_a_row(work: Work):
    figures = {"bf16": train.in_a_process("bf16", work, asked(limit=0.2))}  # it has not even imported torch by then
    assert "took longer than" in train.line("bf16", figures, 1.0)


def test_ratios_are_to_the_guide_and_to_the_faster_unsloth():
    figures: dict[str, train.Figures] = {
        mode: {"tokens_per_second": speed, "peak_gib": 7.25}
        for mode, speed in (("guide", 100.0), ("unsloth", 400.0), ("unsloth-lean", 300.0), ("nf4", 600.0))
    }
    assert train.line("nf4", figures, 1200.0).split() == ["nf4", "600", "6.00", "1.50", "50.0%", "7.2"]


def test_figures_of_an_earlier_call_are_kept_if_it_measured_the_same(tmp_path: Path):
    head, file = {"base": "8b", "device": "H100"}, tmp_path / "figures.json"
    assert train.earlier(file, head) == train.earlier(None, head) == {}
    file.write_text(json.dumps({**head, "modes": {"guide": {"tokens_per_second": 1}}}))
    assert list(train.earlier(file, head)) == ["guide"]
    assert train.earlier(file, {**head, "device": "H200"}) == {}

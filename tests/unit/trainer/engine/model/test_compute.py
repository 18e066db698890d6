"""In which type a base computes: where it is faster, and in the one that a continued run has begun with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from services.trainer.domain.plan import Plan
from services.trainer.engine.checkpoints import STATE
from services.trainer.engine.fast import varlen
from services.trainer.engine.loop import Interrupted
from services.trainer.engine.model import compute
from services.trainer.engine.model.adapter import load, trainable
from services.trainer.engine.model.attention import AttentionChoice, for_short_rows
from services.trainer.engine.model.compute import choose_compute, gain_of_16_bits
from services.trainer.engine.state import State, compute_of
from tests.support.data.micro_base import make_tokenizer
from tests.unit.trainer.engine.test_training import losses, stop_after, train

pytestmark = pytest.mark.torch

MakePlan = Callable[..., Plan]
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def in_16_bits(base: Path, tmp_path: Path) -> Path:
    """The micro base as real ones are published."""
    folder = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def measuring(monkeypatch: pytest.MonkeyPatch, gain: float) -> None:
    monkeypatch.setattr(compute, "gain_of_16_bits", lambda: gain)


@pytest.mark.parametrize(
    ("stored", "device", "gain", "kept", "name", "reason"),
    [
        (torch.bfloat16, CPU, 4.0, None, "bfloat16", "4.0 times as fast as in float32"),
        (torch.float16, CPU, 4.0, None, "bfloat16", "4.0 times as fast as in float32"),
        (torch.bfloat16, CPU, 1.2, None, "float32", "1.2 times as fast as in float32"),
        (torch.bfloat16, CPU, 0.2, None, "float32", "0.2 times as fast as in float32"),
        (torch.float32, CPU, 4.0, None, "float32", "not stored in 16 bits (float32)"),
        (None, CPU, 4.0, None, "float32", "does not say"),
        (torch.bfloat16, CPU, 4.0, "float32", "float32", "the checkpoint"),
        (torch.bfloat16, CPU, 0.2, "bfloat16", "bfloat16", "the checkpoint"),
        (torch.float32, GPU, 0.0, None, "bfloat16", "GPU"),
        (torch.bfloat16, GPU, 0.0, "float32", "bfloat16", "GPU"),
    ],
)
def test_the_type_is_chosen_by_device_base_and_measurement(
    stored: Any, device: Any, gain: float, kept: str | None, name: str, reason: str
):
    chosen = choose_compute(stored, device, kept, lambda: gain)
    assert (chosen.name, chosen.dtype) == (name, getattr(torch, name))
    assert reason in chosen.reason


def test_the_measurement_leaves_the_threads_as_they_were():
    torch.set_num_threads(2)
    assert gain_of_16_bits() > 0
    assert torch.get_num_threads() == 2


def test_what_a_run_computes_in_is_said(
    make_plan: MakePlan, tmp_path: Path, in_16_bits: Path, monkeypatch: pytest.MonkeyPatch
):
    measuring(monkeypatch, 4.0)
    train(make_plan(base={"id": "half", "location": str(in_16_bits)}), tmp_path / "half-run")
    train(make_plan(), tmp_path / "full-run")  # the micro base is stored in float32
    for run, value in (("half-run", "bfloat16"), ("full-run", "float32")):
        said = json.loads((tmp_path / run / "hyperparameters.json").read_text())["compute"]
        assert said["value"] == value and said["reason"]
        attention = json.loads((tmp_path / run / "hyperparameters.json").read_text())["attention"]
        assert attention["value"] == ("eager" if value == "bfloat16" else "sdpa")


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_a_base_in_16_bits_learns_as_in_32(
    make_plan: MakePlan, tmp_path: Path, in_16_bits: Path, monkeypatch: pytest.MonkeyPatch, quantization: str
):
    plan = make_plan(base={"id": "half", "location": str(in_16_bits)}, lora={"quantization": quantization})
    found = []
    for gain in (4.0, 0.5):
        measuring(monkeypatch, gain)
        train(plan, tmp_path / str(gain))
        found.append([row["train_loss"] for row in losses(tmp_path / str(gain))])
    half, full = found
    assert half != full
    assert half == pytest.approx(full, rel=0.05)
    assert half[-1] < half[0] - 0.3


def test_the_adapter_is_float32_however_the_base_computes(
    make_plan: MakePlan, in_16_bits: Path, monkeypatch: pytest.MonkeyPatch
):
    from services.trainer.domain.auto import Choice, Facts, choose  # noqa: PLC0415
    from services.trainer.engine.model.base import inspect_base  # noqa: PLC0415

    measuring(monkeypatch, 4.0)
    plan = make_plan(base={"id": "half", "location": str(in_16_bits)}, lora={"quantization": "none"})
    facts = Facts(examples=40, trained_tokens=100, parameters=10**6, parameters_per_rank=1000)
    model = load(plan, inspect_base(plan), choose(plan, facts, Choice(64, "")), CPU)
    assert all(parameter.dtype == torch.float32 for parameter in trainable(model).values())
    frozen = {parameter.dtype for parameter in model.parameters() if not parameter.requires_grad}
    assert frozen == {torch.bfloat16}


@pytest.mark.parametrize("gains", [(4.0, 0.5), (0.5, 4.0)])
def test_a_continued_run_computes_as_it_began_wherever_it_goes_on(
    make_plan: MakePlan,
    tmp_path: Path,
    in_16_bits: Path,
    monkeypatch: pytest.MonkeyPatch,
    gains: tuple[float, float],
):
    changes = {"base": {"id": "half", "location": str(in_16_bits)}, "lora": {"r": 8, "dropout": 0.2}}
    here, there = gains
    measuring(monkeypatch, here)
    train(make_plan(**changes), tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(make_plan(**changes), tmp_path / "first", stop=stop_after(13))
    measuring(monkeypatch, there)
    resumed = make_plan(**changes, resume_from=str(tmp_path / "first" / "resume"))
    with pytest.raises(Interrupted):
        train(resumed, tmp_path / "second", stop=stop_after(3))
    resumed = make_plan(**changes, resume_from=str(tmp_path / "second" / "resume"))
    train(resumed, tmp_path / "third")
    assert losses(tmp_path / "third") == losses(tmp_path / "whole")
    said = json.loads((tmp_path / "third" / "hyperparameters.json").read_text())["compute"]
    assert said["value"] == ("bfloat16" if here > 1 else "float32")
    assert "checkpoint" in said["reason"]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ({"compute": "bfloat16", "fit": {"micro_tokens": 1024, "recompute": False}}, "bfloat16"),
        ({"fit": {"micro_tokens": 1024, "recompute": False}}, "float32"),  # an earlier version, on a CPU
        ({"fit": {"micro_tokens": 8192, "recompute": True}}, None),  # on a GPU
        ({}, None),
    ],
)
def test_a_checkpoint_says_what_its_run_has_computed_in(tmp_path: Path, written: dict[str, Any], kept: str | None):
    state = State(identity={}).model_dump(mode="json", exclude={"compute", "fit"})
    (tmp_path / STATE).write_text(json.dumps({**state, **written}))
    assert compute_of(tmp_path) == kept


@pytest.mark.parametrize(
    ("implementation", "longest", "bfloat16_on_cpu", "chosen"),
    [
        ("sdpa", 256, True, "eager"),
        ("sdpa", 257, True, "sdpa"),
        ("sdpa", 100, False, "sdpa"),
        ("eager", 300, True, "eager"),
        (varlen.NAME, 100, False, varlen.NAME),
    ],
)
def test_short_rows_get_the_attention_that_is_fastest_for_them(
    implementation: str, longest: int, bfloat16_on_cpu: bool, chosen: str
):
    before = AttentionChoice(implementation, "why")
    after = for_short_rows(before, longest, bfloat16_on_cpu=bfloat16_on_cpu)
    assert after.implementation == chosen
    assert (after.reason == "why") == (chosen == implementation)

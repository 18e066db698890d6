"""The estimate before a job is that of the training process, for any device, and says what it does not know."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.trainer.domain.memory_plan import GIB
from services.trainer.domain.recipe import Device
from services.trainer.domain.speeds import Speed
from services.trainer.estimate import devices, prices
from services.trainer.estimate.estimate import Estimate, estimate
from shared.base.reading import read_base
from shared.errors import InputError
from shared.events import JobSpec
from tests.support.data.byte_base import make_byte_base
from tests.support.data.micro_base import support_rows, write_rows

MakeEstimate = Callable[..., Estimate]


@pytest.fixture
def make(tmp_path: Path) -> MakeEstimate:
    """An estimate for 40 rows on a base of bytes, of the widths of an 8B; keyword arguments change it."""
    folder = make_byte_base(tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    sizes = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
    sizes |= {"num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps({**config, **sizes}))

    def made(**changes: Any) -> Estimate:
        spec = changes.pop("spec", {})
        given: dict[str, Any] = {
            "files": read_base(str(folder), "bytes"),
            "base": "bytes",
            "method": "supervised",
            "form": "chat",
            "max_length": None,
            "device": devices.named("h100"),
            "prices": prices.load(None),
        }
        train = write_rows(tmp_path / "train.jsonl", support_rows(40))
        return estimate(
            train,
            write_rows(tmp_path / "v.jsonl", support_rows(8)),
            **given | changes,
            spec=JobSpec.model_validate(spec),
        )

    return made


def test_an_8b_is_planned_with_reasons(make: MakeEstimate):
    found = make()
    assert found.parameters == pytest.approx(8.03e9, rel=0.01)
    assert found.tokens == 7 * found.rows["train"].tokens and found.steps == 70
    assert found.hyperparameters["n_epochs"]["value"] == 7  # type: ignore[index, call-overload]
    assert found.hyperparameters["quantization"]["value"] == "none"  # type: ignore[index, call-overload]
    assert found.fits and 16 * GIB < found.memory_bytes < 40 * GIB
    assert found.training_seconds and found.seconds == found.training_seconds + 30
    assert "no training was measured" in found.speed
    assert {"h100", "a100", "l4"} <= set(found.holds)


def test_a_small_gpu_gets_four_bits_and_a_smaller_fit(make: MakeEstimate):
    large, small = make(), make(device=Device(True, "NVIDIA GeForce RTX 3080", 10 * GIB, 9 * GIB, (8, 6)))
    assert small.hyperparameters["quantization"]["value"] == "nf4"  # type: ignore[index, call-overload]
    assert small.fits and small.memory_bytes < large.memory_bytes


def test_what_no_fit_holds_is_said(make: MakeEstimate):
    found = make(spec={"lora": {"quantization": "none"}}, device=Device(True, "NVIDIA L4", 9 * GIB, 8 * GIB, (8, 9)))
    assert not found.fits
    assert "l4" in found.holds and "t4" not in found.holds


def speed(**changes: Any) -> Speed:
    given = {"device": "NVIDIA H100 80GB HBM3", "base": "bytes", "parameters": 1, "quantization": "none"}
    given |= {"seconds": 2.0, "memory": 1.5, "tokens_per_second": 10.0, "other_seconds": 12.0, "at": 1.0}
    return Speed.model_validate(given | changes)


def test_what_was_measured_here_corrects_the_plan(make: MakeEstimate):
    plain = make()
    assert plain.training_seconds is not None
    found = make(speeds=[speed(parameters=plain.parameters)])
    assert found.training_seconds == pytest.approx(2 * plain.training_seconds)
    assert found.memory_bytes == pytest.approx(1.5 * plain.memory_bytes)
    assert found.other_seconds == 12 and "measured on this machine" in found.speed
    elsewhere = make(speeds=[speed(parameters=plain.parameters, device="NVIDIA L4")])
    assert elsewhere == plain
    another = make(speeds=[speed(base="tiny", parameters=5)])
    assert another.training_seconds == pytest.approx(2 * plain.training_seconds)
    assert another.memory_bytes == plain.memory_bytes and "tiny" in another.speed


def test_money_comes_from_the_price_file_and_what_it_does_not_know_is_said(make: MakeEstimate, tmp_path: Path):
    file = tmp_path / "prices.yaml"
    file.write_text(
        "currency: EUR\n"
        "gpus: {h100: {per_hour: 3600, date: today, source: a test}}\n"
        "hosted: {big: {training: 10, input: 1, output: 2, date: today, source: a test}}\n"
    )
    found = make(prices=prices.load(file), hosted=["big", "unheard-of"])
    local, big, unknown = found.costs
    assert local.amount == pytest.approx(found.seconds) and local.currency == "EUR"
    assert big.amount == pytest.approx(found.tokens * 10 / 1e6)
    rows = found.rows["train"]
    prompt = rows.tokens - rows.trained_tokens
    assert big.per_1000_answers == pytest.approx((prompt + 2 * rows.trained_tokens) / 40 / 1000)
    assert unknown.amount is None and "unheard-of" in unknown.reason and "big" in unknown.reason
    assert make(prices=prices.load(file), device=devices.named("l4")).costs[0].amount is None


def test_a_wrong_price_file_is_refused_by_its_field(tmp_path: Path):
    file = tmp_path / "prices.json"
    file.write_text('{"hosted": {"big": {"training": -1, "date": "d", "source": "s"}}}')
    with pytest.raises(InputError, match=r"hosted\.big\.training"):
        prices.load(file)
    with pytest.raises(InputError, match="cannot be used"):
        prices.load(tmp_path / "missing.json")


def test_a_gpu_that_training_refuses_is_refused_here_too():
    with pytest.raises(InputError, match="bfloat16"):
        devices.named("t4")
    with pytest.raises(InputError, match="rtx4090"):
        devices.named("voodoo")


@pytest.mark.parametrize(
    ("asked", "answer", "name"),
    [
        (None, "NVIDIA L4, 23034, 22000, 8.9\nNVIDIA H200, 143000, 140000, 9.0\n", "NVIDIA L4"),
        ("1", "NVIDIA L4, 23034, 22000, 8.9\nNVIDIA H200, 143000, 140000, 9.0\n", "NVIDIA H200"),
        ("cpu", "NVIDIA L4, 23034, 22000, 8.9\n", "CPU"),
        (None, "", "CPU"),
        (None, "a new kind of answer\n", "CPU"),
    ],
)
def test_this_machine_has_the_gpu_that_the_settings_name(asked: str | None, answer: str, name: str):
    assert devices.here(asked, lambda: answer).name == name


@pytest.mark.torch
def test_the_estimate_is_what_the_training_process_tells(tmp_path: Path, base: Path, make_plan: Callable[..., Any]):
    from services.trainer.engine.report import speeds  # noqa: PLC0415
    from tests.unit.trainer.engine.test_training import train  # noqa: PLC0415

    kept = tmp_path / "speeds.json"
    plan = make_plan(speeds=str(kept))
    result = train(plan, tmp_path / "out")
    given: dict[str, Any] = {"files": read_base(str(base), "micro"), "base": "micro", "method": "supervised"}
    given |= {"form": "chat", "max_length": None, "device": devices.cpu(), "prices": prices.load(None)}
    given["spec"] = JobSpec(hyperparameters=plan.hyperparameters)
    found = estimate(Path(plan.train), Path(plan.validation), **given)
    assert found.training_seconds == pytest.approx(result.estimated_seconds, rel=0.01)
    assert found.memory_bytes == pytest.approx(result.estimated_memory_bytes, rel=0.01)
    assert found.steps == result.total_steps
    [measured] = speeds.read(kept)
    assert measured.seconds == pytest.approx(result.seconds / result.estimated_seconds, rel=0.01)
    again = estimate(Path(plan.train), Path(plan.validation), **given, speeds=[measured])
    assert again.training_seconds == pytest.approx(result.seconds, rel=0.01)
    assert again.memory_bytes == pytest.approx(result.peak_memory_bytes, rel=0.01)


def test_nothing_here_imports_torch():
    """Neither does what it imports of the engine."""
    modules = "services.trainer.estimate.estimate, services.trainer.estimate.table"
    code = f"import sys; sys.modules['torch'] = None; import {modules}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

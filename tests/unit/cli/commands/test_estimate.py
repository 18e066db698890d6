"""`tunestream estimate` as a user calls it: without a stack, from the file and the small files of the base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.trainer.engine.report import speeds
from tests.support.data.byte_base import make_byte_base
from tests.unit.cli.commands.test_commands import GOOD, invoke
from tests.unit.trainer.estimate.test_estimate import speed


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("good.jsonl").write_text(GOOD)
    folder = make_byte_base(tmp_path / "bytes")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 512, "num_attention_heads": 8}))
    return str(folder)


def test_it_prints_tokens_time_memory_and_money_with_reasons(runner: CliRunner, base: str) -> None:
    result = invoke(runner, "estimate", "good.jsonl", "--base", base, "--gpu", "l4")
    assert result.exit_code == 0
    for words in ("NVIDIA L4", "train 10", "GiB at the peak", "tokens/s", "training on l4", "gpt-4.1-mini", "n_epochs"):
        assert words in result.output


def test_its_json_has_what_the_settings_change(runner: CliRunner, base: str) -> None:
    words = ("estimate", "good.jsonl", "--base", base, "--gpu", "cpu", "--json")
    one = json.loads(invoke(runner, *words, "--set", "hyperparameters.n_epochs=1").stdout)
    two = json.loads(invoke(runner, *words, "--set", "hyperparameters.n_epochs=2").stdout)
    assert two["tokens"] == 2 * one["tokens"] > 0
    assert one["hyperparameters"]["n_epochs"] == {"value": 1, "reason": "as set"}


def test_what_was_measured_on_this_machine_is_used(runner: CliRunner, base: str) -> None:
    words = ("estimate", "good.jsonl", "--base", base, "--gpu", "cpu", "--json")
    plain = json.loads(invoke(runner, *words).stdout)
    measured = speed(device="CPU", base="bytes", parameters=plain["parameters"], quantization="nf4")
    speeds.add(Path(".tunestream/trainer") / speeds.NAME, measured)
    corrected = json.loads(invoke(runner, *words).stdout)
    assert corrected["training_seconds"] == pytest.approx(2 * plain["training_seconds"])
    assert "measured on this machine" in corrected["speed"]


def test_a_file_that_cannot_be_trained_on_is_named_with_the_remedy(runner: CliRunner, base: str) -> None:
    Path("bad.jsonl").write_text(GOOD + "\n{]\n")
    result = invoke(runner, "estimate", "bad.jsonl", "--base", base)
    assert result.exit_code == 1
    assert "Example 13" in result.output and "tunestream check" in result.output


def test_a_table_is_estimated_as_the_dataset_that_it_would_become(runner: CliRunner, base: str) -> None:
    Path("tickets.csv").write_text("question,answer\n" + "".join(f"How is {at}?,It is {at}.\n" for at in range(12)))
    result = invoke(runner, "estimate", "tickets.csv", "--base", base)
    assert result.exit_code == 0 and "12 rows became 12 examples" in result.output
    Path("few.csv").write_text("question,answer\na?,b.\n")
    assert "`tunestream check few.csv" in invoke(runner, "estimate", "few.csv", "--base", base).output


def test_a_gpu_and_a_price_that_are_not_known_are_said(runner: CliRunner, base: str) -> None:
    assert "rtx4090" in invoke(runner, "estimate", "good.jsonl", "--base", base, "--gpu", "voodoo").output
    result = invoke(runner, "estimate", "good.jsonl", "--base", base, "--hosted", "unheard-of", "--gpu", "cpu")
    assert "not known" in result.output and "unheard-of" in result.output


def test_the_table_of_usual_sizes_needs_no_file(runner: CliRunner) -> None:
    result = invoke(runner, "estimate", "--table")
    assert "70B" in result.output and "QLoRA (nf4)" in result.output
    lines = json.loads(invoke(runner, "estimate", "--table", "--json").stdout)
    sizes = {line["size"] for line in lines}
    assert {"1B", "3B", "7B", "8B", "13B", "34B", "70B"} <= sizes
    by_method = {line["quantization"]: line for line in lines if line["size"] == "70B"}
    assert by_method["nf4"]["gpus"]["h100"]["hours"] and by_method["none"]["gpus"]["h100"]["hours"] is None
    assert invoke(runner, "estimate").exit_code == 1

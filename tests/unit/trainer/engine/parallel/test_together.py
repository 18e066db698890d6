"""A training in two processes is the training of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from services.trainer.domain.plan import Plan
from services.trainer.engine import checkpoints
from services.trainer.engine.loop import Interrupted
from services.trainer.engine.messages import ProcessLost, TrainingResult
from services.trainer.engine.model import memory
from services.trainer.engine.parallel import peers
from tests.support.data.micro_base import write_rows
from tests.unit.trainer.engine.parallel import short_of_memory
from tests.unit.trainer.engine.parallel.test_peers import running
from tests.unit.trainer.engine.test_training import losses, stop_after, train

pytestmark = pytest.mark.torch

MakePlan = Callable[..., Plan]
QUIET = {"lora": {"r": 8, "dropout": 0.0}}
"""Dropout is other noise in each process, so that runs in other numbers of processes compare only without it."""


def assert_alike(one: Path, other: Path) -> None:
    """The runs in these folders differ by rounding alone."""
    rows, others = losses(one), losses(other)
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    for row, compared in zip(rows, others, strict=True):
        assert row == pytest.approx(compared, rel=1e-5)
        assert row["tokens"] == compared["tokens"]
    adapters = [load_file(out / "adapter" / "adapter_model.safetensors") for out in (one, other)]
    assert adapters[0].keys() == adapters[1].keys()
    for name, tensor in adapters[0].items():
        assert float((tensor - adapters[1][name]).abs().max()) < 1e-4, name
    results = [TrainingResult.model_validate_json((out / "result.json").read_bytes()) for out in (one, other)]
    for name in ("steps", "saved_step", "trained_tokens", "stopped_early", "hyperparameters"):
        assert getattr(results[0], name) == getattr(results[1], name), name
    assert [info.step for info in results[0].checkpoints] == [info.step for info in results[1].checkpoints]
    assert not running()


def test_a_run_goes_on_in_another_number_of_processes(make_plan: MakePlan, tmp_path: Path) -> None:
    """Two begin until one of them is killed, and one ends it; then the reverse. The last batch of an epoch has one row,
    so that a process has none."""
    plan = make_plan(**QUIET, eval_every=3, checkpoint_every=1)
    rows = [json.loads(line) for line in Path(plan.train).read_text().splitlines()]
    write_rows(Path(plan.train), rows[:37])
    train(plan, tmp_path / "one")
    calls = iter(range(1, 10**6))

    def kill_later() -> bool:
        if next(calls) == 13:
            [peer] = running()
            peer.kill()
        return False

    with pytest.raises(ProcessLost, match=r"process 2 of the 2 .* signal 9"):
        train(plan.model_copy(update={"gpus": 2}), tmp_path / "two", stop=kill_later)
    assert not running()
    assert losses(tmp_path / "two")[-1]["step"] in (12, 13)
    train(plan.model_copy(update={"resume_from": str(tmp_path / "two" / "resume")}), tmp_path / "two-one")
    assert_alike(tmp_path / "two-one", tmp_path / "one")

    with pytest.raises(Interrupted):
        train(plan, tmp_path / "first", stop=stop_after(11))
    resumed = {"gpus": 2, "resume_from": str(tmp_path / "first" / "resume")}
    train(plan.model_copy(update=resumed), tmp_path / "one-two")
    assert_alike(tmp_path / "one-two", tmp_path / "one")
    document = json.loads((tmp_path / "one-two" / "hyperparameters.json").read_bytes())
    assert document["gpus"] == {"value": 2, "reason": "as set"}
    left = {path.name for path in (tmp_path / "one-two").iterdir()}
    assert left == {path.name for path in (tmp_path / "one").iterdir()}


def test_memory_that_runs_out_in_a_peer_lowers_the_fit_of_all_and_all_stop_together(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And preference pairs are measured against the same reference."""

    def row(number: int) -> dict[str, object]:
        said = f"It is {number}.", "No." * (number % 4)
        answers = [[{"role": "assistant", "content": content}] for content in said]
        asked = {"messages": [{"role": "user", "content": f"Where is order {number}?"}]}
        return {"input": asked, "preferred_completion": answers[0], "non_preferred_completion": answers[1]}

    pairs = {"method": "dpo", "format": "preference", "validation": None, **QUIET}
    pairs["hyperparameters"] = {"n_epochs": 1, "batch_size": 5, "learning_rate": 0.001}
    plan = make_plan(**pairs, checkpoint_every=1)
    write_rows(Path(plan.train), [row(number) for number in range(1, 24)])
    train(plan, tmp_path / "one")
    monkeypatch.setattr(memory, "ON_CPU", short_of_memory.FITS)
    monkeypatch.setattr(peers, "ENGINE", short_of_memory.__name__)
    with pytest.raises(Interrupted):  # in the fifth step; the third begins twice
        train(plan.model_copy(update={"gpus": 2}), tmp_path / "two", stop=stop_after(5))
    assert not running()
    fits = []
    for step in range(1, 5):
        _, documents = checkpoints.read(tmp_path / "two" / "resume" / f"step-{step}")
        fits.append(json.loads(documents["state.json"])["fit"]["micro_tokens"])
    assert fits == [1024, 1024, 512, 512]
    train(plan.model_copy(update={"resume_from": str(tmp_path / "two" / "resume")}), tmp_path / "continued")
    assert_alike(tmp_path / "continued", tmp_path / "one")

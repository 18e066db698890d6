"""A training in two processes is the training of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import psutil
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
    same = ("steps", "saved_step", "trained_tokens", "stopped_early", "checkpoints", "hyperparameters")
    for name in same:
        if name != "checkpoints":
            assert getattr(results[0], name) == getattr(results[1], name), name
    assert [info.step for info in results[0].checkpoints] == [info.step for info in results[1].checkpoints]
    assert not psutil.Process().children(recursive=True)


def test_a_run_is_begun_by_two_and_ended_by_one_and_the_reverse(make_plan: MakePlan, tmp_path: Path) -> None:
    """The last batch of an epoch has one row, so that one process has none."""
    plan = make_plan(**QUIET, eval_every=3)
    rows = [json.loads(line) for line in Path(plan.train).read_text().splitlines()]
    write_rows(Path(plan.train), rows[:37])
    train(plan, tmp_path / "one")
    for first, second in ((2, 1), (1, 2)):
        begun, ended = tmp_path / f"begun-by-{first}", tmp_path / f"ended-by-{second}"
        with pytest.raises(Interrupted):
            train(plan.model_copy(update={"gpus": first}), begun, stop=stop_after(11))
        assert losses(begun)[-1]["step"] < 20
        resumed = {"gpus": second, "resume_from": str(begun / "resume")}
        train(plan.model_copy(update=resumed), ended)
        assert_alike(ended, tmp_path / "one")
    document = json.loads((ended / "hyperparameters.json").read_bytes())
    assert document["gpus"] == {"value": 2, "reason": "as set"}
    left = {path.name for path in ended.iterdir()}
    assert left == {path.name for path in (tmp_path / "one").iterdir()}


def test_memory_that_runs_out_in_a_peer_lowers_the_fit_of_all(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And preference pairs are measured against the same reference."""

    def row(number: int) -> dict[str, object]:
        answers = [
            [{"role": "assistant", "content": content}] for content in (f"It is {number}.", "No." * (number % 4))
        ]
        asked = {"messages": [{"role": "user", "content": f"Where is order {number}?"}]}
        return {"input": asked, "preferred_completion": answers[0], "non_preferred_completion": answers[1]}

    pairs = {"method": "dpo", "format": "preference", "validation": None, **QUIET}
    pairs["hyperparameters"] = {"n_epochs": 1, "batch_size": 5, "learning_rate": 0.001}
    plan = make_plan(**pairs, checkpoint_every=1)
    write_rows(Path(plan.train), [row(number) for number in range(1, 24)])
    train(plan, tmp_path / "one")
    monkeypatch.setattr(memory, "ON_CPU", short_of_memory.FITS)
    monkeypatch.setattr(peers, "ENGINE", short_of_memory.__name__)
    train(plan.model_copy(update={"gpus": 2}), tmp_path / "two")
    assert_alike(tmp_path / "two", tmp_path / "one")
    fits = []
    for step in range(1, 6):
        _, documents = checkpoints.read(tmp_path / "two" / "resume" / f"step-{step}")
        fits.append(json.loads(documents["state.json"])["fit"]["micro_tokens"])
    assert fits == [1024, 1024, 512, 512, 512]


def test_a_peer_that_is_killed_ends_the_run_which_is_continued(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan(**QUIET, checkpoint_every=1)
    calls = iter(range(1, 10**6))

    def kill_later() -> bool:
        if next(calls) == 5:
            [peer] = psutil.Process().children()
            peer.kill()
        return False

    with pytest.raises(ProcessLost, match=r"process 2 of the 2 .* signal 9"):
        train(plan.model_copy(update={"gpus": 2}), tmp_path / "killed", stop=kill_later)
    assert not psutil.Process().children()
    train(plan, tmp_path / "one")
    train(plan.model_copy(update={"resume_from": str(tmp_path / "killed" / "resume")}), tmp_path / "continued")
    assert_alike(tmp_path / "continued", tmp_path / "one")

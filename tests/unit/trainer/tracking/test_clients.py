"""The real clients, writing where no server is needed; what they wrote is read by their own readers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.trainer.engine.messages import StepDone
from services.trainer.tracking.tracker import Run, Tracker

TRACE = "http://127.0.0.1:16686/trace/4bf92f3577b34da6a3ce929d0e0e4736"


def step(number: int, loss: float, **more: float) -> StepDone:
    data = {"step": number, "total_steps": 9, "epoch": number / 9, "train_loss": loss, "learning_rate": 0.001}
    data |= {"tokens": 64, "tokens_per_second": 123.5, "eta_seconds": 1.0, "memory_bytes": 1000, **more}
    return StepDone.model_validate({"at": 1_700_000_000.0 + number, **data})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(
        "ftjob-abc",
        tmp_path,
        facts={"base": "org/micro", "trace": TRACE},
        parameters={"n_epochs": 3, "batch_size": 8, "target_modules": "q_proj, v_proj"},
    )


def two_attempts(first: Tracker, second: Tracker, run: Run) -> None:
    """An attempt that reached step 5 and was interrupted, and one that continued from the checkpoint of step 3."""
    first.begin(run, 1)
    first.log([step(number, 3.0 - number / 10) for number in range(1, 4)])
    first.log([step(4, 9.0), step(5, 9.0)])
    first.end("interrupted")
    second.begin(run, 4)
    second.log([step(number, 3.0 - number / 10) for number in range(4, 9)])
    second.log([step(9, 2.1, valid_loss=1.5)])
    second.end("completed")


LOSSES = [pytest.approx(3.0 - number / 10) for number in range(1, 10)]


@pytest.mark.tensorboard
def test_tensorboard_has_each_step_once_the_parameters_and_the_link_to_the_trace(tmp_path: Path, run: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    from services.trainer.tracking.tensorboard import TensorBoard  # noqa: PLC0415

    two_attempts(TensorBoard(tmp_path / "board"), TensorBoard(tmp_path / "board"), run)
    read = EventAccumulator(str(tmp_path / "board" / "ftjob-abc"))
    read.Reload()
    losses = read.Scalars("train_loss")
    assert [each.step for each in losses] == list(range(1, 10))
    assert [each.value for each in losses] == LOSSES
    assert [(each.step, each.value) for each in read.Scalars("valid_loss")] == [(9, 1.5)]
    assert {"learning_rate", "tokens_per_second", "memory_bytes"} <= set(read.Tags()["scalars"])
    text = read.Tensors("job")[-1].tensor_proto.string_val[0].decode()
    assert f"| trace | {TRACE} |" in text and "| batch_size | 8 |" in text


@pytest.mark.tensorboard
def test_tensorboard_forgets_the_steps_of_a_checkpoint_that_did_not_fit(tmp_path: Path, run: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    from services.trainer.tracking.tensorboard import TensorBoard  # noqa: PLC0415

    board = TensorBoard(tmp_path / "board")
    board.begin(run, 7)
    board.log([step(7, 9.0)])
    board.log([step(1, 3.0), step(2, 2.0)])
    board.end("completed")
    read = EventAccumulator(str(tmp_path / "board" / "ftjob-abc"))
    read.Reload()
    assert [each.step for each in read.Scalars("train_loss")] == [1, 2]


@pytest.mark.mlflow
def test_mlflow_continues_the_run_of_the_job(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient  # noqa: PLC0415

    from services.trainer.tracking.mlflow import MLflow  # noqa: PLC0415

    uri = (tmp_path / "runs").as_uri()
    two_attempts(MLflow(uri), MLflow(uri), run)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tunestream")
    assert experiment is not None
    [found] = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == ("ftjob-abc", "FINISHED")
    assert found.data.tags["tunestream.job_id"] == "ftjob-abc"
    assert found.data.tags["trace"] == TRACE
    assert found.data.params == {"n_epochs": "3", "batch_size": "8", "target_modules": "q_proj, v_proj"}
    history = {each.step: each.value for each in client.get_metric_history(found.info.run_id, "train_loss")}
    assert list(history.values()) == LOSSES, "what was made again counts last"
    assert found.data.metrics["valid_loss"] == 1.5


@pytest.mark.mlflow
def test_mlflow_says_how_a_training_ended(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient  # noqa: PLC0415

    from services.trainer.tracking.mlflow import MLflow  # noqa: PLC0415

    uri = (tmp_path / "runs").as_uri()
    tracker = MLflow(uri)
    tracker.begin(replace(run, project="team-a"), 1)
    tracker.log([step(1, 1.0)])
    tracker.end("failed")
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tunestream/team-a")
    assert experiment is not None
    assert [each.info.status for each in client.search_runs([experiment.experiment_id])] == ["FAILED"]


@pytest.mark.wandb
def test_wandb_writes_a_run_with_the_id_of_the_job(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    import wandb  # noqa: PLC0415

    from services.trainer.tracking.wandb import WeightsAndBiases  # noqa: PLC0415

    asked = replace(run, project="theirs", label="my run", entity="team", tags=("a", "b"))
    try:
        for number in (1, 2):
            tracker = WeightsAndBiases("ours")
            tracker.begin(asked if number == 1 else run, number)
            tracker.log([step(number, 3.0 - number), step(number + 1, 2.0, valid_loss=1.5)])
            made: Any = tracker._run
            assert (made.id, made.project) == ("ftjob-abc", "theirs" if number == 1 else "ours")
            assert (made.name, made.entity) == (("my run", "team") if number == 1 else ("ftjob-abc", made.entity))
            assert made.config["trace"] == TRACE and made.config["batch_size"] == 8
            assert made.summary["train_loss"] == 2.0 and made.summary["step"] == number + 1
            tracker.end("interrupted" if number == 1 else "completed")
    finally:
        wandb.teardown()
    files = sorted(path.parent.name for path in (tmp_path / "wandb").glob("offline-run-*/run-ftjob-abc.wandb"))
    assert len(files) == 2

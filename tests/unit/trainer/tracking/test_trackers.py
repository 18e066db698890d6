"""Which trackers are told what of a job."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from services.trainer.app import build
from services.trainer.engine.messages import HyperparametersChosen, StepDone
from services.trainer.job.process import child_environment
from services.trainer.tracking import trackers as module
from services.trainer.tracking.tracker import Outcome, Run
from services.trainer.tracking.trackers import Trackers, check, makers
from shared.errors import ConfigError, InputError, TransientError
from shared.events import JobProgress
from shared.service import Context
from shared.settings import Settings, TrackingSettings
from tests.support.data.jobs import make_attempt, make_job
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.store import FakeStore
from tests.support.waiting import until
from tests.unit.trainer.tracking.test_feed import step

CHOSEN = HyperparametersChosen(at=1.0, n_epochs=3, batch_size=8, learning_rate_multiplier=1.0)
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ASKED = {"type": "wandb", "wandb": {"project": "theirs", "name": "mine", "entity": "team", "tags": ["a", "b"]}}


class Recorder:
    """A tracker that keeps what it is told, or is away."""

    def __init__(self, *, away: bool = False) -> None:
        self.away = away
        self.run: Run | None = None
        self.steps: list[int] = []
        self.outcome: Outcome | None = None

    def begin(self, run: Run, first_step: int) -> None:
        if self.away:
            raise OSError("no route")
        self.run = run

    def log(self, steps: Sequence[StepDone]) -> None:
        self.steps += [each.step for each in steps]

    def end(self, outcome: Outcome) -> None:
        self.outcome = outcome


def settings(**tracking: Any) -> Settings:
    jaeger = {"jaeger_url": "http://127.0.0.1:16686/"}
    return Settings.model_validate({"tracking": tracking, "telemetry": jaeger})


async def attempt(
    folder: Path, recorders: dict[str, Recorder], error: BaseException | None = None, **job: Any
) -> list[JobProgress]:
    """An attempt of two steps that ends with `error`. Returns what it has published."""
    (folder / "out").mkdir(exist_ok=True)
    chosen = {"n_epochs": {"value": 3, "reason": "r"}, "target_modules": {"value": ["k", "q"], "reason": "r"}}
    chosen["beta"] = {"value": None, "reason": "r"}
    (folder / "out" / "hyperparameters.json").write_text(json.dumps(chosen))
    made, progress = make_attempt(make_job().model_copy(update={"traceparent": TRACEPARENT, **job}), "trainer")
    feeds = {name: lambda it=it: it for name, it in recorders.items()}
    with contextlib.suppress(InputError, TransientError):
        async with Trackers(made, settings(), folder, feeds) as trackers:
            for message in (CHOSEN, step(1), step(2)):
                await trackers.hear(message)
            if error is not None:
                raise error
    return progress


async def test_each_tracker_is_told_the_steps_the_parameters_and_where_the_trace_is(tmp_path: Path) -> None:
    recorders = {name: Recorder() for name in ("tensorboard", "mlflow")}
    assert await attempt(tmp_path, recorders) == []
    for recorder in recorders.values():
        assert recorder.run is not None
        assert recorder.run.parameters == {"n_epochs": 3, "target_modules": "k, q"}
        assert recorder.run.facts["trace"] == "http://127.0.0.1:16686/trace/4bf92f3577b34da6a3ce929d0e0e4736"
        assert recorder.run.facts["job"] == recorder.run.job_id
        assert (recorder.steps, recorder.outcome) == ([1, 2], "completed")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(InputError("out_of_memory", "m", "p"), "failed"), (TransientError("stopped"), "interrupted")],
)
async def test_only_an_end_of_the_job_ends_the_run_for_good(error: Exception, outcome: str, tmp_path: Path) -> None:
    recorder = Recorder()
    await attempt(tmp_path, {"mlflow": recorder}, error)

    await until(lambda: recorder.outcome == outcome, "the run ends")


async def test_wandb_gets_what_the_job_asks_for_and_the_others_do_not(tmp_path: Path) -> None:
    recorders = {name: Recorder() for name in ("wandb", "mlflow")}
    job = make_job()
    spec = job.spec.model_validate({**job.spec.model_dump(), "integrations": [ASKED]})
    await attempt(tmp_path, recorders, spec=spec, project="team-a")
    wandb, mlflow = recorders["wandb"].run, recorders["mlflow"].run
    assert wandb is not None and mlflow is not None
    assert (wandb.project, wandb.label, wandb.entity, wandb.tags) == ("theirs", "mine", "team", ("a", "b"))
    assert (mlflow.project, mlflow.label) == ("team-a", None)


@pytest.mark.parametrize(("kind", "said"), [("drop", 1), ("api", 0)])
async def test_an_integration_of_a_dropped_job_that_is_not_served_is_told(kind: str, said: int, tmp_path: Path) -> None:
    """The api has told those that came through it."""
    job = make_job()
    spec = job.spec.model_validate({**job.spec.model_dump(), "integrations": [ASKED]})
    progress = await attempt(tmp_path, {}, spec=spec, origin=job.origin.model_validate({"kind": kind}))
    assert [event.message for event in progress] == [
        "warning: the integration wandb is not served here, so nothing is sent to it"
    ] * said


async def test_a_tracker_that_is_away_is_told_once_and_the_others_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorders = {"mlflow": Recorder(away=True), "tensorboard": Recorder()}
    progress = await attempt(tmp_path, recorders)
    [warning] = [event.message for event in progress]
    assert warning == (
        "warning: mlflow does not take the figures of the training (OSError); the training goes on, and they are sent "
        "again later"
    )
    assert recorders["tensorboard"].steps == [1, 2]


# --- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_tracker_without_its_client_is_a_wrong_setting_that_names_the_remedy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(module: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(module, "import_module", missing)
    context = Context(settings(**{name: str(tmp_path)}), FakeStore(), FakeBus())
    with pytest.raises(ConfigError, match=rf"TUNESTREAM_TRACKING__{name.upper()}.*pip install 'tunestream\[{name}\]'"):
        build(context)


def test_a_folder_that_cannot_be_made_is_a_wrong_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "import_module", lambda name: None)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"TUNESTREAM_TRACKING__TENSORBOARD: .* cannot be made"):
        check(TrackingSettings(tensorboard=tmp_path / "file" / "board"))
    check(TrackingSettings(tensorboard=tmp_path / "board"))
    assert (tmp_path / "board").is_dir()


def test_nothing_is_tracked_unless_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    check(TrackingSettings())
    assert not makers(TrackingSettings())
    assert set(makers(TrackingSettings(mlflow="http://mlflow:5000", wandb="ours"))) == {"mlflow", "wandb"}


def test_one_variable_switches_a_tracker_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TENSORBOARD", "board"), ("MLFLOW", "http://mlflow:5000"), ("WANDB", "ours")):
        monkeypatch.setenv(f"TUNESTREAM_TRACKING__{name}", value)
    assert Settings().tracking == TrackingSettings(tensorboard=Path("board"), mlflow="http://mlflow:5000", wandb="ours")


def test_the_training_process_gets_no_key_of_a_tracker() -> None:
    given = {"WANDB_API_KEY": "s", "MLFLOW_TRACKING_PASSWORD": "s", "HF_TOKEN": "needed"}
    made = child_environment(given, gpu=None, threads=None)
    assert "HF_TOKEN" in made and not {"WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD"} & made.keys()

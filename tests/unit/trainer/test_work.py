"""The stage's work with a real training process: what is published, and what survives kill -9."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.inference.domain.adapter import config_problems, file_problems
from services.trainer.domain.plan import Plan, parse_plan
from services.trainer.engine.report.reporter import Reporter
from services.trainer.engine.run import run
from services.trainer.job.ahead import ProcessAhead
from services.trainer.job.process import child_environment, safe_trace
from services.trainer.work import TrainWork, raise_for_exit_code
from shared.base import BaseProfile, ServerFacts, ledger
from shared.errors import InputError, TransientError
from shared.events import (
    DatasetValidated,
    FolderReference,
    Job,
    JobProgress,
    JobSpec,
    Reference,
    Split,
    TrainingCompleted,
)
from shared.settings import ModelSettings, Settings, TrainerSettings
from shared.stages.ledger import job_key
from shared.stages.stage import Attempt
from tests.support.data.micro_base import support_rows
from tests.support.fakes.store import FakeStore
from tests.support.spans import Spans

pytestmark = pytest.mark.torch

DATASET = Reference(bucket="datasets", key="d.jsonl", etag="e", size=1, sha256="0")


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def settings(base: Path, tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "model": {"id": "org/micro", "path": str(base)},
            "trainer": {"gpu": "cpu", "threads": 1, "work_dir": tmp_path / "work"},
        }
    )


class Run:
    """Attempts at the trainer stage of one job; `progress` is what they published."""

    def __init__(
        self,
        store: FakeStore,
        settings: Settings,
        *,
        job_id: str = "ftjob-abc",
        start_from: FolderReference | None = None,
        base_profile: str | None = None,
        origin: dict[str, Any] | None = None,
        ahead: ProcessAhead | None = None,
        **spec: Any,
    ) -> None:
        self.job_id = job_id
        self.origin = origin or {}
        self.base_profile = base_profile
        self.start_from = start_from
        self.work = TrainWork(store, settings, ahead)
        self.store = store
        self.progress: list[JobProgress] = []
        self.on_progress: Callable[[JobProgress], None] = self.progress.append
        hyperparameters = {"n_epochs": 4, "batch_size": 4, "learning_rate": 0.01}
        self.spec = JobSpec.model_validate(
            {"hyperparameters": hyperparameters, "lora": {"r": 8, "dropout": 0.2}, **spec}
        )

    @property
    def job(self) -> Job:
        return Job.model_validate(
            {
                "job_id": self.job_id,
                "start_from": self.start_from,
                "created_at": 0.0,
                "dataset": DATASET,
                "spec": self.spec,
                "base": "org/micro",
                "model": f"ft:micro:org::{self.job_id.removeprefix('ftjob-')}",
                "alias": "d",
                "origin": self.origin,
                "traceparent": "",
            }
        )

    async def attempt(self, number: int) -> TrainingCompleted:
        job = self.job
        await self.store.put(job_key(job.job_id), job.model_dump_json().encode())
        request = DatasetValidated(
            job_id=job.job_id,
            method="supervised",
            format="chat",
            train=await self._split("train", support_rows(40)),
            validation=await self._split("validation", support_rows(8, start=40)),
            test=await self._split("test", support_rows(4, start=48)),
            report=DATASET,
            base_profile=self.base_profile,
        )

        async def publish(event: JobProgress) -> None:
            self.on_progress(event)

        prefix = f"jobs/{job.job_id}/trainer/attempt-{number}/"
        return await self.work(Attempt(job, request.model_dump(mode="json"), "trainer", number, prefix, publish))

    async def _split(self, name: str, rows: list[dict[str, Any]]) -> Split:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        reference = await self.store.put(f"splits/{name}.jsonl", text.encode())
        return Split(reference=reference, examples=len(rows), tokens=1000)

    def metrics(self, number: int) -> list[dict[str, Any]]:
        text = self.store.held[f"jobs/{self.job_id}/trainer/attempt-{number}/metrics.jsonl"].data.decode()
        return without_clock(text)


def without_clock(metrics: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in json.loads(line).items() if k != "tokens_per_second"} for line in metrics.splitlines()]


def children() -> list[psutil.Process]:
    """The training processes that run, also those that are forks of one that was started ahead."""
    running = [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]
    engines = [p for p in running if "services.trainer.engine" in p.cmdline()]
    return [each for p in engines for each in (p.children() if "--wait" in p.cmdline() else [p])]


@pytest.mark.parametrize("problem", [None, "it has no adapters for LlamaForCausalLM"])
async def test_an_adapter_changes_only_what_the_server_of_the_profile_can_change(
    problem: str | None, store: FakeStore, settings: Settings
) -> None:
    server = ServerFacts(version="0.32", linears=("q_proj", "v_proj", "lm_head"), problem=problem)
    profile = BaseProfile(
        digest="abc", architecture="LlamaForCausalLM", template_digest="d", content_format="string", server=server
    )
    await ledger.save(store, profile)
    job = Run(store, settings, base_profile="abc", hyperparameters={"n_epochs": 1, "batch_size": 40})
    if problem is not None:
        with pytest.raises(InputError, match="cannot be tuned: it has no adapters"):
            await job.attempt(1)
        return
    completed = await job.attempt(1)
    config = json.loads(store.held[f"{completed.adapter.prefix}adapter_config.json"].data)
    assert config["target_modules"] and all(name.endswith(("q_proj", "v_proj")) for name in config["target_modules"])


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """Those that a training process is started with; none is."""
    given: list[Plan] = []

    async def start(plan: Path, *_: Any, **__: Any) -> None:
        given.append(parse_plan(plan.read_bytes()))
        raise TransientError("stopped by the test")

    monkeypatch.setattr("services.trainer.work.TrainingProcess.start", start)
    return given


@pytest.mark.parametrize("stored", [True, False])
async def test_the_template_is_given_what_the_rows_were_checked_with(
    stored: bool, store: FakeStore, settings: Settings, plans: list[Plan]
) -> None:
    """The profile says it, or the settings where an older validate service names none."""
    of_profile, of_settings = {"enable_thinking": False}, {"enable_thinking": True}
    profile = BaseProfile(
        digest="abc",
        architecture="LlamaForCausalLM",
        template_digest="d",
        content_format="string",
        chat_template_kwargs=of_profile,
    )
    await ledger.save(store, profile)
    model = {**settings.model.model_dump(), "profile": {"chat_template_kwargs": of_settings}}
    changed = settings.model_copy(update={"model": ModelSettings.model_validate(model)})
    with pytest.raises(TransientError):
        await Run(store, changed, base_profile="abc" if stored else None).attempt(1)
    assert [plan.chat_template_kwargs for plan in plans] == [of_profile if stored else of_settings]


@pytest.mark.parametrize(
    ("trainer", "asked"),
    [({}, 1), ({"gpus": "auto"}, "auto"), ({"gpus": "2"}, 2), ({"gpus": 2, "gpu": "cpu"}, 1)],
)
async def test_a_training_uses_as_many_gpus_as_the_settings_say(
    trainer: dict[str, Any], asked: int | str, store: FakeStore, settings: Settings, plans: list[Plan]
) -> None:
    of_trainer = {**settings.trainer.model_dump(), "gpu": None, **trainer}
    changed = settings.model_copy(update={"trainer": TrainerSettings.model_validate(of_trainer)})
    with pytest.raises(TransientError):
        await Run(store, changed).attempt(1)
    assert [plan.gpus for plan in plans] == [asked]


async def test_after_a_kill_the_next_attempt_continues_exactly(
    store: FakeStore, settings: Settings, make_plan: Any, tmp_path: Path, spans: Spans, ahead: ProcessAhead
):
    job = Run(store, settings, ahead=ahead)
    await killed(job, 1, after=20)
    job.progress.clear()
    reached = [span.name for span in spans.all]
    before = ["trainer.download", "trainer.start", "trainer.tokenize", "trainer.load", "trainer.prepare"]
    assert reached[:-1] == [*before, "trainer.epoch 1", *(["trainer.epoch 2"] if len(reached) > 7 else [])]
    assert spans.all[-1].status.description == "RuntimeError"
    completed = await job.attempt(2)

    plan = make_plan(hyperparameters=job.spec.hyperparameters, lora=job.spec.lora)
    (tmp_path / "unbroken").mkdir()
    unbroken = run(plan, tmp_path / "unbroken", Reporter(tmp_path / "unbroken", events=True), lambda: False)
    assert job.metrics(2) == without_clock((tmp_path / "unbroken" / "metrics.jsonl").read_text())
    weights = store.held[f"{completed.adapter.prefix}adapter_model.safetensors"].data
    assert weights == (tmp_path / "unbroken" / "adapter" / "adapter_model.safetensors").read_bytes()

    assert (completed.model, completed.base, completed.rank) == ("ft:micro:org::abc", "org/micro", 8)
    assert (completed.steps, completed.valid_loss) == (40, unbroken.valid_loss)
    assert completed.test is not None
    assert completed.hyperparameters["batch_size"] == 4
    assert set(completed.artifacts) == {
        *("curves.png", "metrics.jsonl", "results.csv", "preview.txt", "hyperparameters.json")
    }
    assert [c.step for c in completed.checkpoints] == [10, 20, 30, 40]
    assert {c.prefix.split("/")[3] for c in completed.checkpoints} == {"attempt-1", "attempt-2"}
    for checkpoint in completed.checkpoints:  # each can be served
        files = [key.removeprefix(checkpoint.prefix) for key in store.held if key.startswith(checkpoint.prefix)]
        assert file_problems(files) == []
        assert config_problems(json.loads(store.held[f"{checkpoint.prefix}adapter_config.json"].data), max_rank=8) == []
        assert f"{checkpoint.prefix}manifest.json" in store.held
    states = {key.rpartition("/")[0] for key in store.held if "/resume/" in key and key.endswith("manifest.json")}
    buried = {
        json.loads(store.held[key].data)["prefix"] for key in store.held if key.startswith("deleted/checkpoints/")
    }
    assert len(states - {prefix.rstrip("/") for prefix in buried}) == 1, "the newest state is all that is left"

    steps = [progress for progress in job.progress if "grad_norm" in progress.data]
    continued = next(progress.step for progress in job.progress if progress.message.startswith("continued from step"))
    assert continued in (20, 30)
    told = [progress.step for progress in steps]
    assert told == sorted(set(told)) and told[0] == continued + 1
    assert {step for step in (20, 30, 40) if step > continued} <= set(told), "what a validation followed is told"
    assert all(step.data["peak_memory_bytes"] >= step.data["memory_bytes"] > 0 for step in steps)
    assert steps[-1].eta_seconds == 0.0
    assert [progress.step for progress in job.progress if progress.state == "checkpoint"] == list(
        range(continued + 10, 41, 10)
    )
    resumed = [span.name for span in spans.all[len(reached) :]]
    epochs = [f"trainer.epoch {number}" for number in range(continued // 10 + 1, 5)]
    assert resumed == [*before, *epochs, "trainer.save", "trainer.upload"]
    assert not children()
    assert list((tmp_path / "work").rglob("*.jsonl")) == []


async def test_a_job_starts_from_the_adapter_of_an_earlier_one(
    store: FakeStore, settings: Settings, ahead: ProcessAhead
):
    earlier = Run(store, settings, ahead=ahead)
    completed = await earlier.attempt(1)
    job = Run(store, settings, ahead=ahead, job_id="ftjob-def", start_from=completed.adapter, lora={})
    second = await job.attempt(1)
    assert (second.rank, second.hyperparameters["lora_alpha"]) == (8, 16)
    assert job.metrics(1)[0]["train_loss"] < earlier.metrics(1)[0]["train_loss"] - 0.3

    await store.delete(f"{completed.adapter.prefix}adapter_model.safetensors")
    with pytest.raises(InputError, match="gone or damaged") as caught:
        await Run(store, settings, job_id="ftjob-ghi", start_from=completed.adapter).attempt(1)
    assert (caught.value.code, caught.value.param) == ("start_unreadable", "model")


def retry_of(parent: Run, job_id: str, **more: Any) -> Run:
    """A job that is a retry of `parent` from the training."""
    origin = {"parent_job": parent.job_id, "from_stage": "trainer"}
    settings = {**parent.spec.model_dump(), "rerun": parent.spec.rerun + 1, **more}
    work = parent.work
    return Run(parent.store, work._settings, ahead=work._ahead, job_id=job_id, origin=origin, **settings)


async def killed(job: Run, number: int, *, after: int) -> None:
    """Attempt `number` of `job` is killed when a state of the step `after`, or of a later one, is in the store."""
    state = re.compile(rf"jobs/{job.job_id}/trainer/attempt-{number}/resume/step-(\d+)/manifest\.json")

    def kill(event: JobProgress) -> None:
        job.progress.append(event)
        states = filter(None, map(state.fullmatch, job.store.held))
        if any(int(found[1]) >= after for found in states):
            for child in children():  # none: it was killed at the event before
                child.kill()

    job.on_progress = kill
    with pytest.raises(RuntimeError, match="ended by signal 9"):
        await job.attempt(number)
    job.on_progress = job.progress.append


def continued_from(job: Run) -> int | None:
    """The step from which the last attempt went on; None: it began from the beginning."""
    began = max(n for n, event in enumerate(job.progress) if event.message == "training: load")
    return next((event.step for event in job.progress[began:] if event.message.startswith("continued from")), None)


async def test_a_retry_of_a_retry_continues_exactly_from_the_newest_checkpoint(
    store: FakeStore, settings: Settings, make_plan: Any, tmp_path: Path, ahead: ProcessAhead
):
    job = Run(store, settings, ahead=ahead, hyperparameters={"n_epochs": 6, "batch_size": 4, "learning_rate": 0.01})
    await killed(job, 1, after=10)
    second = retry_of(job, "ftjob-def")
    await killed(second, 1, after=30)
    third = retry_of(second, "ftjob-ghi")
    completed = await third.attempt(1)
    assert continued_from(second) in (10, 20)
    assert continued_from(third) in (30, 40)

    plan = make_plan(hyperparameters=job.spec.hyperparameters, lora=job.spec.lora)
    (tmp_path / "unbroken").mkdir()
    run(plan, tmp_path / "unbroken", Reporter(tmp_path / "unbroken", events=True), lambda: False)
    assert third.metrics(1) == without_clock((tmp_path / "unbroken" / "metrics.jsonl").read_text())
    assert (completed.job_id, completed.model) == ("ftjob-ghi", "ft:micro:org::ghi")
    assert [c.step for c in completed.checkpoints] == [10, 20, 30, 40, 50, 60]
    assert all(f"{c.prefix}manifest.json" in store.held for c in completed.checkpoints)
    assert {c.prefix.split("/")[1] for c in completed.checkpoints} >= {"ftjob-abc", "ftjob-def"}


async def test_where_the_checkpoint_of_the_parent_does_not_fit_that_of_the_retry_counts(
    store: FakeStore, settings: Settings, ahead: ProcessAhead
):
    """An operator has changed what the template is given. The retry began anew, and its next attempt continues from
    there, although the parent was further."""
    job = Run(store, settings, ahead=ahead)
    await killed(job, 1, after=20)
    again = retry_of(job, "ftjob-def")
    model = {**settings.model.model_dump(), "profile": {"chat_template_kwargs": {"enable_thinking": True}}}
    again.work = TrainWork(store, settings.model_copy(update={"model": ModelSettings.model_validate(model)}), ahead)
    await killed(again, 1, after=10)
    assert continued_from(again) is None
    completed = await again.attempt(2)
    assert continued_from(again) in (10, 20)
    assert {c.prefix.split("/")[1] for c in completed.checkpoints} == {"ftjob-def"}


async def test_a_cancelled_attempt_leaves_a_checkpoint_and_no_process(store: FakeStore, settings: Settings):
    job = Run(store, settings, hyperparameters={"n_epochs": 50, "batch_size": 1, "early_stopping_patience": 0})
    began = asyncio.Event()

    def notice(event: JobProgress) -> None:
        if (event.step or 0) >= 3:
            began.set()

    job.on_progress = notice
    attempt = asyncio.create_task(job.attempt(1))
    await began.wait()
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert not children()
    assert [key for key in store.held if key.endswith("manifest.json") and "attempt-1/resume/step-" in key]


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        (65, InputError, "lower it"),
        (69, TransientError, "lower it"),
        (70, RuntimeError, "lower it; a.py:1 in f"),
        (75, TransientError, "told to stop"),
        (-9, RuntimeError, "signal 9.*a.py:1 in f"),
    ],
)
def test_how_the_process_ended_decides_what_happens_next(
    tmp_path: Path, code: int, error: type[Exception], message: str
):
    (tmp_path / "error.json").write_text('{"code": "lora_rank_too_high", "message": "lower it", "param": "lora.r"}')
    raise_for_exit_code(0, "", tmp_path)
    with pytest.raises(error, match=message) as caught:
        raise_for_exit_code(code, "a.py:1 in f", tmp_path)
    if isinstance(caught.value, InputError):
        assert (caught.value.code, caught.value.param) == ("lora_rank_too_high", "lora.r")


async def test_the_training_process_dies_with_its_parent():
    child = (
        "import signal, sys; from shared.process import end_with; end_with(int(sys.argv[1])); "
        "print('ready', flush=True); signal.pause()"
    )
    parent = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', sys.argv[1], str(os.getpid())], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", parent, child),
        stdout=asyncio.subprocess.PIPE,
        env=child_environment(os.environ, gpu="cpu", threads=1),
    )
    assert process.stdout is not None
    orphan = psutil.Process(int(await process.stdout.readline()))
    process.kill()
    await process.wait()
    orphan.wait(timeout=10)


def test_the_child_gets_no_secrets_and_its_own_gpu():
    environment = {"PATH": "/bin", "TUNESTREAM_STORE__SECRET_KEY": "x", "CUDA_VISIBLE_DEVICES": "0,1"}
    assert "TUNESTREAM_STORE__SECRET_KEY" not in child_environment(environment, gpu=None, threads=None)
    assert child_environment(environment, gpu=None, threads=None)["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert child_environment(environment, gpu="1", threads=4)["CUDA_VISIBLE_DEVICES"] == "1"
    assert child_environment(environment, gpu="cpu", threads=4)["CUDA_VISIBLE_DEVICES"] == ""
    limited = child_environment(environment, gpu="cpu", threads=4)
    assert limited["OMP_NUM_THREADS"] == limited["RAYON_NUM_THREADS"] == "4"


def test_a_crash_is_told_without_user_text():
    stderr = [
        "Traceback (most recent call last):",
        '  File "/srv/services/trainer/data.py", line 12, in read',
        "    raise ValueError(f'bad {row}')",
        "ValueError: bad my password is hunter2",
    ]
    assert safe_trace(stderr) == "data.py:12 in read > ValueError"
    assert "CUDA error: an illegal memory access" in safe_trace(["RuntimeError: CUDA error: an illegal memory access"])

"""The api with its runner of sweeps, and beside it the other services, as far as a trial needs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from services.api.domain.state import FINAL
from services.api.sweeps.controller import Controller
from services.api.sweeps.standings import Standings
from services.api.sweeps.store import SweepStore
from services.ingest.requests import Requests
from shared.events import (
    Event,
    Job,
    JobFailed,
    JobProgress,
    ModelDeployed,
    TrainingCompleted,
    TrainingUsage,
)
from shared.stages.ledger import ASKED, RETRIES, control_prefix, job_key, result_key
from tests.support.data.job_history import ENDPOINT, JobHistory, delivery
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.store import FakeStore
from tests.unit.api.conftest import Api

ROWS = b'{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n'
STEPS, SECONDS, TOKENS = 5, 20.0, 1000
"""Of every training, of which each step is followed by a validation."""

Losses = Callable[[Job], float | None]
"""None: there is nothing to validate on."""


def near_one(job: Job) -> float:
    """A validation loss that is the lowest where the learning rate multiplier is 1."""
    multiplier = job.spec.hyperparameters.learning_rate_multiplier
    return 1.0 + abs(float(multiplier if multiplier != "auto" else 1.0) - 1.0)


class Killed(BaseException):
    """The process is gone."""


class KillingStore(FakeStore):
    """A store whose client dies right after each write of it, as long as `armed`."""

    armed = False
    writes = 0

    async def after(self, operation: str, key: str) -> None:
        if self.armed and operation in ("create", "put", "replace"):
            self.writes += 1
            raise Killed(key)


class TrialJob(JobHistory):
    """The history of a job with this manifest."""

    def __init__(self, job: Job, loss: float | None) -> None:
        super().__init__(created_at=job.created_at)
        self.job_id, self.model, self.job, self.loss = job.job_id, job.model, job, loss

    @property
    def trained(self) -> TrainingCompleted:
        usage = TrainingUsage(device="CPU", tokens=TOKENS, seconds=SECONDS)
        return super().trained.model_copy(update={"valid_loss": self.loss, "usage": usage, "artifacts": {}})

    def step(self, step: int) -> JobProgress:
        data = {"train_loss": 2.0, "epoch": step / STEPS}
        if self.loss is not None:
            data["valid_loss"] = self.loss + 1.0 - step / STEPS
        return self.progress("trainer", step=step, total_steps=STEPS, data=data)


@dataclass
class World:
    """`losses`: the validation loss of each trial; `fails`: why a trial fails, None if it does not."""

    api: Api
    losses: Losses = near_one
    fails: Callable[[Job], str | None] = lambda job: None
    passes: bool = True
    """Whether the gate lets the best model pass."""
    files: int = 0
    steps: dict[str, int] = field(default_factory=dict)
    """How far each training is."""

    @property
    def objects(self) -> FakeStore:
        return self.api.objects

    # --- the user -----------------------------------------------------------------------------------------------

    async def file(self) -> str:
        self.files += 1
        sent = {"file": (f"rows-{self.files}.jsonl", ROWS)}
        answer = await self.api.client.post("/v1/files", data={"purpose": "fine-tune"}, files=sent)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    async def sweep(self, **body: Any) -> str:
        """Ask for one. Returns its id."""
        answer = await self.api.client.post("/sweeps", json={"training_file": await self.file(), **body})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    async def view(self, sweep_id: str) -> dict[str, Any]:
        return dict(await self.api.get(f"/sweeps/{sweep_id}"))

    # --- the runner ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """A new process."""
        objects = self.objects
        self.store = SweepStore(objects)
        standings = Standings(objects, self.api.database, self.api.projection)
        self.controller = Controller(objects, self.store, self.api.projection, standings, self.api.bus)

    async def tick(self) -> None:
        """One look of the runner at all sweeps."""
        for documents in await self.store.under_way():
            await self.controller.step(documents)

    async def until_over(self, sweep_id: str, *, most: int = 200) -> dict[str, Any]:
        """Let runner and services take turns until the sweep has ended."""
        for _ in range(most):
            await self.tick()
            await self.work()
            if (view := await self.view(sweep_id))["finished_at"] is not None:
                return view
        raise AssertionError(f"the sweep did not end: {await self.view(sweep_id)}")

    # --- the other services -------------------------------------------------------------------------------------

    async def work(self, *, whole: bool = True) -> None:
        """Make the jobs that are asked for, and take each to its end; or only one step further in its training."""
        await Requests(self.objects, FakeBus()).make_jobs()
        for job in await self.jobs():
            if (await self.api.projection.refresh(job.job_id)).status in FINAL:  # type: ignore[union-attr]
                continue
            if any(key.startswith(f"{control_prefix(job.job_id)}cancel") for key in self.objects.held):
                await self._cancel(job)
            elif job.origin.from_stage == "evaluator":
                await self._evaluate(job)
            else:
                await self._train(job, whole=whole)
            await self.api.projection.refresh(job.job_id)

    async def jobs(self) -> list[Job]:
        """The manifests that ingest has made, oldest first."""
        keys = [key for key in self.objects.held if key.startswith((ASKED, RETRIES))]
        wanted = [job_key(key.rsplit("/", 1)[-1].removesuffix(".json")) for key in keys]
        # a runner in the background may have asked for one since ingest looked
        found = [Job.model_validate_json(self.objects.held[key].data) for key in wanted if key in self.objects.held]
        return sorted(found, key=lambda job: (job.created_at, job.job_id))

    async def trials(self) -> list[Job]:
        return [job for job in await self.jobs() if job.is_trial]

    async def _train(self, job: Job, *, whole: bool) -> None:
        history = TrialJob(job, self.losses(job))
        if result_key(job.job_id, "validate") not in self.objects.held:
            for stage in ("ingest", "validate"):
                event, after = history.results[stage]
                await history.finish(self.objects, stage, event, after, "completed")
            await self._tell(history.progress("trainer", "started", attempt=1), "start")
        if code := self._refusal(job):
            await history.finish(self.objects, "trainer", history.failed(code=code), 20.0, "failed")
            return
        done = self.steps.get(job.job_id, 0)
        for step in range(done + 1, (STEPS if whole else done + 1) + 1):
            await self._tell(history.step(step), str(step))
            self.steps[job.job_id] = step
        if self.steps[job.job_id] == STEPS:
            await history.finish(self.objects, "trainer", history.trained, 20.0, "completed")
            evaluated = history.evaluated.model_copy(update={"passed": False})
            await history.finish(self.objects, "evaluator", evaluated, 21.0, "completed")
            ended = history.progress("inference", "not_promoted", message="a trial")
            await history.finish(self.objects, "inference", ended, 22.0, "completed")

    def _refusal(self, job: Job) -> str | None:
        budget = job.spec.budget
        too_small = budget is not None and budget.tokens is not None and budget.tokens < TOKENS
        return "budget_too_small" if too_small else self.fails(job)

    async def _evaluate(self, job: Job) -> None:
        parent = TrialJob(job, 0.0)
        evaluated = parent.evaluated.model_copy(update={"passed": self.passes})
        ended: Event = parent.progress("inference", "not_promoted", message="no better than its base")
        if self.passes:
            ended = ModelDeployed(job_id=job.job_id, model=job.model, alias=job.alias, endpoint=ENDPOINT)
        for stage, event in {
            "ingest": parent.uploaded,
            "validate": parent.validated,
            "trainer": parent.trained,
            "evaluator": evaluated,
            "inference": ended,
        }.items():
            await parent.finish(self.objects, stage, event, 30.0, "completed")

    async def _cancel(self, job: Job) -> None:
        history = TrialJob(job, 0.0)
        for stage in ("ingest", "validate"):
            event, after = history.results[stage]
            await history.finish(self.objects, stage, event, after, "completed")
        failed = JobFailed(job_id=job.job_id, stage="trainer", code="cancelled", message="cancelled")
        await history.finish(self.objects, "trainer", failed, 10.0, "cancelled")

    async def _tell(self, event: JobProgress, place: str) -> None:
        at = self.objects.now()
        ce_id = f"ftevent-{event.job_id}-{place}"
        await self.api.projection.take(event, delivery(event, ce_id, at))

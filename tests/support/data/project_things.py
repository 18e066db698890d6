"""One of everything that a project can own, made as its users and the services make it; and the ids of things that
nobody owns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import httpx

from services.api.domain.sweeps.documents import Sweep, sweep_id_of, sweep_key
from services.api.domain.sweeps.space import USUAL
from services.api.projection import Projection
from shared import ids
from shared.events import CheckpointInfo, JobSpec, ModelDeployed, StoredFile, TrainingCompleted
from shared.stages.ledger import attempt_prefix, file_meta_key
from tests.support.data.job_history import JobHistory
from tests.support.data.keys import id_of
from tests.support.data.trained_models import BASE, add_adapter
from tests.support.fakes.store import FakeStore

ROWS = b'{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n'
STEP = 2
"""Of the listed checkpoint of each model."""
_RANDOM = re.compile(r"[a-z2-7]{8}(?=$|:ckpt-step-)")
"""The last eight random characters of an id."""

Things = dict[str, str]
"""Ids, by the words that requests have for them, such as `file`."""


class ProjectJob(JobHistory):
    """A job of a project, whose model has an adapter in the store, and a checkpoint."""

    def __init__(self, project: str, name: str) -> None:
        super().__init__(_number(project, name))
        self.model = ids.model_id(self.job_id, BASE, "tunestream", "support")
        spec = JobSpec(suffix="support", metadata={"team": team(project)})
        about = {"project": project, "base": BASE, "model": self.model, "alias": alias(project), "spec": spec}
        self.job = self.job.model_copy(update=about)

    async def add_adapters(self, objects: FakeStore) -> None:
        prefix = attempt_prefix(self.job_id, "trainer", 1)
        self._adapter = await add_adapter(objects, f"{prefix}adapter/")
        self._checkpoint = await add_adapter(objects, f"{prefix}checkpoints/step-{STEP}/")

    @property
    def trained(self) -> TrainingCompleted:
        checkpoints = (CheckpointInfo(step=STEP, prefix=self._checkpoint.prefix),)
        about = {"base": BASE, "adapter": self._adapter, "checkpoints": checkpoints, "project": self.job.project}
        return super().trained.model_copy(update=about)

    @property
    def ended(self) -> ModelDeployed:
        return ModelDeployed(job_id=self.job_id, model=self.model, alias=self.job.alias, endpoint="http://x.test/v1")


def _number(project: str, name: str) -> int:
    return int.from_bytes(f"{project}/{name}".encode())


def team(project: str) -> str:
    """The value of `metadata.team` of a project's jobs."""
    return f"team-of-{project}"


def alias(project: str) -> str:
    return f"alias-of-{project}"


@dataclass
class Owner:
    """Makes the things of a project, with its own keys: `user` may train and serve, `admin` may do everything. Both
    are clients of the inference service, which hands on what is not its own."""

    project: str
    user: httpx.AsyncClient
    admin: httpx.AsyncClient
    objects: FakeStore
    projection: Projection

    async def make_all(self) -> Things:
        """One of everything."""
        files = {name: await self._file(name) for name in ("file", "validation", "other_file")}
        jobs = {
            "job": await self._job("job"),
            "spare_job": await self._job("spare_job"),
            "running": await self._job("running", until="validate"),
            "failed": await self._failed_job(),
        }
        made = files | {name: job.job_id for name, job in jobs.items()} | await self._of_jobs(jobs)
        made |= await self._uploads() | await self._endpoints() | {"sweep": await self._sweep(made["file"])}
        return made | {"key": id_of(f"{self.project}user"), "alias": alias(self.project), "team": team(self.project)}

    async def _file(self, name: str) -> str:
        sent = {"file": (f"{name}-of-{self.project}.jsonl", ROWS)}
        return await self._made("/v1/files", data={"purpose": "fine-tune"}, files=sent)

    async def _job(self, name: str, until: str = "inference") -> ProjectJob:
        job = ProjectJob(self.project, name)
        await job.add_adapters(self.objects)
        await job.write_documents(self.objects, until=until)
        for each in job.events if until == "inference" else job.events[:6]:
            await self.projection.take(each.event, each.delivery)
        return job

    async def _failed_job(self) -> ProjectJob:
        job = await self._job("failed", until="validate")
        await job.finish(self.objects, "trainer", job.failed(), 20.0, "failed")
        await self.projection.refresh(job.job_id)
        return job

    async def _of_jobs(self, jobs: dict[str, ProjectJob]) -> Things:
        """What comes of jobs, and a job that was asked for."""
        job, spare = jobs["job"], jobs["spare_job"]
        for model in (BASE, job.model):  # so that the alias has a history
            deployed = await self.admin.post(f"/deployments/{alias(self.project)}", json={"model": model})
            assert deployed.status_code == 200, deployed.text
        wanted = {"model": BASE, "training_file": await self._file("asked"), "metadata": {"team": team(self.project)}}
        given = await self.admin.post(
            f"/v1/fine_tuning/checkpoints/{job.model}/permissions", json={"project_ids": ["guests"]}
        )
        path = f"/v1/fine_tuning/jobs/{job.job_id}"
        return {
            "model": job.model,
            "checkpoint_model": f"{job.model}:ckpt-step-{STEP}",
            "spare_model": spare.model,
            "permission": given.json()["data"][0]["id"],
            "event": (await self.user.get(f"{path}/events")).json()["data"][0]["id"],
            "checkpoint": (await self.user.get(f"{path}/checkpoints")).json()["data"][0]["id"],
            "result_file": (await self.user.get(path)).json()["result_files"][0],
            "asked": await self._made("/v1/fine_tuning/jobs", json=wanted),
        }

    async def _uploads(self) -> Things:
        """An upload with all of its parts, and one that is to be cancelled."""
        about = {"filename": "big.jsonl", "purpose": "fine-tune", "bytes": len(ROWS), "mime_type": "text/jsonl"}
        upload = await self._made("/v1/uploads", json=about)
        part = await self._made(f"/v1/uploads/{upload}/parts", files={"data": ROWS})
        return {"upload": upload, "part": part, "other_upload": await self._made("/v1/uploads", json=about)}

    async def _sweep(self, file: str) -> str:
        """A search that has not begun."""
        stored = StoredFile.model_validate_json(self.objects.held[file_meta_key(file)].data)
        sweep = Sweep(
            sweep_id=sweep_id_of(self.project, "thing"),
            created_at=self.objects.now(),
            project=self.project,
            key_id=id_of(f"{self.project}user"),
            request="",
            dataset=stored.content,
            filename=stored.filename,
            base=BASE,
            organization="tunestream",
            spec=JobSpec(),
            space=USUAL,
            trials=1,
            parallel=1,
            traceparent="",
        )
        self.objects.add(sweep_key(sweep.sweep_id), sweep.model_dump_json().encode())
        return sweep.sweep_id

    async def _endpoints(self) -> Things:
        nobody = "http://127.0.0.1:9/hook"  # nothing listens there
        about = {"name": f"hook-of-{self.project}", "url": nobody, "event_types": ["fine_tuning.job.failed"]}
        return {"endpoint": await self._made("/v1/webhook_endpoints", json=about)}

    async def _made(self, path: str, **sent: Any) -> str:
        answer = await self.user.post(path, **sent)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])


def nobodys(things: Things) -> Things:
    """Ids of the same forms as those of `things`, which name nothing."""
    return {name: _RANDOM.sub("z" * 8, thing) if _RANDOM.search(thing) else "nobody" for name, thing in things.items()}

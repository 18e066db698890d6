"""Fine-tuning jobs. The run's own job is begun first and trains while the other checks go on; `own_job_ends` waits."""

from __future__ import annotations

import csv
import inspect
import io
import time

import openai
import openai._base_client
from calls import UNIQUE, Calls, Left, rows

MODEL = "gpt-4o-mini-2024-07-18"
SHORT = {"evaluation": {"max_examples": 2, "few_shot": 0, "max_tokens": 1}, "gate": {"promote": "never"}}
"""Further fields of the jobs: their evaluation takes seconds, and no alias moves to their models."""
RUNNING = ("validating_files", "queued", "running")
JOB_SECONDS = 900.0
"""Runs of other clients train, too."""
NUMBERS = {"n_epochs": 2, "batch_size": 8, "learning_rate_multiplier": 1.0}
CREATE = "/fine_tuning/jobs"
JOB = "/fine_tuning/jobs/{0}"


class Jobs(Calls):
    own = None
    """The run's own job."""

    # --- the job that runs to its end -------------------------------------------------------------------------

    async def own_job(self) -> None:
        """It is created, rests and goes on."""
        client, jobs = self.client, self.client.fine_tuning.jobs
        train = await self.now(client.files.create(file=("train.jsonl", rows(24, "job")), purpose="fine-tune"))
        valid = await self.now(client.files.create(file=("valid.jsonl", rows(10, "valid")), purpose="fine-tune"))
        about = {"model": MODEL, "training_file": train.id, "validation_file": valid.id, "seed": 7}
        about |= {"suffix": "client-suite", "extra_body": SHORT}
        if self.knows_method():
            method = {"type": "supervised", "supervised": {"hyperparameters": NUMBERS}}
            job = await self.now(jobs.create(**about, method=method, metadata={"suite": UNIQUE}))
            assert job.method.type == "supervised" and job.metadata == {"suite": UNIQUE}, job
        else:
            job = await self.now(jobs.create(**about, hyperparameters=NUMBERS))
        self.own = job
        assert job.object == "fine_tuning.job" and job.id.startswith("ftjob-")
        assert (job.training_file, job.validation_file) == (train.id, valid.id)
        assert job.status in RUNNING and job.fine_tuned_model is None and job.organization_id and job.seed == 7
        paused = await self.ask("fine_tuning.jobs.pause", f"POST {JOB}/pause", job.id)
        assert paused.id == job.id and paused.status == "paused", paused
        assert (await self.now(jobs.retrieve(job.id))).status == "paused"
        resumed = await self.ask("fine_tuning.jobs.resume", f"POST {JOB}/resume", job.id)
        assert resumed.status in RUNNING, resumed

    def knows_method(self) -> bool:
        return "method" in inspect.signature(self.client.fine_tuning.jobs.create).parameters

    async def own_job_ends(self) -> None:
        client, jobs = self.client, self.client.fine_tuning.jobs
        ended = self.own = await self.end(self.own.id)
        assert ended.status == "succeeded", ended.error
        assert ended.fine_tuned_model and ended.fine_tuned_model.startswith("ft:")
        assert ended.trained_tokens and ended.finished_at and ended.hyperparameters.n_epochs == 2
        events = await self.all(jobs.list_events(ended.id, limit=2))
        messages = [event.message for event in reversed(events)]
        assert messages[0] == f"Created fine-tuning job: {ended.id}"
        assert any("gpt-4o-mini" in message for message in messages[:3]), messages[:3]
        assert "The job has successfully completed" in messages
        metrics = [event for event in events if getattr(event, "type", None) == "metrics"]
        assert metrics and {"step", "train_loss"} <= set(metrics[0].data), metrics[:1]
        (result,) = ended.result_files
        content = (await self.now(client.files.content(result))).read().decode()
        table = list(csv.DictReader(io.StringIO(content)))
        assert content.startswith("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"), content[:90]
        assert [int(line["step"]) for line in table] == list(range(1, len(table) + 1))
        about = await self.now(client.files.retrieve(result))
        assert about.purpose == "fine-tune-results" and about.bytes == len(content.encode())

    async def ended_jobs_cannot_be_cancelled(self) -> None:
        began = time.monotonic()
        await self.refused(openai.BadRequestError, lambda: self.client.fine_tuning.jobs.cancel(self.own.id))
        assert time.monotonic() - began < 5, "it was tried again"

    # --- short jobs -------------------------------------------------------------------------------------------

    async def another(self, salt: str, client=None, model: str = MODEL, **options):
        """A long job, which the caller cancels."""
        client = client or self.client
        train = await self.now(self.client.files.create(file=rows(24, salt), purpose="fine-tune"))
        about = {"model": model, "training_file": train.id, "hyperparameters": {"n_epochs": 50}}
        return await self.now(client.fine_tuning.jobs.create(**about, extra_body=SHORT, **options))

    async def retrieve(self, job_id: str):
        return await self.now(self.client.fine_tuning.jobs.retrieve(job_id))

    async def end(self, job_id: str):
        async def ended():
            job = await self.retrieve(job_id)
            return None if job.status in RUNNING else job

        return await self.until(ended, f"{job_id} ends", JOB_SECONDS)

    async def cancel(self) -> None:
        job = await self.another("cancel")
        assert (await self.now(self.client.fine_tuning.jobs.cancel(job.id))).id == job.id
        assert (await self.end(job.id)).status == "cancelled"

    async def job_pages(self) -> None:
        """All jobs in pages of two, and those with the metadata of this run's."""
        jobs = self.client.fine_tuning.jobs
        found = await self.all(jobs.list(limit=2))
        assert self.own.id in [job.id for job in found]
        times = [job.created_at for job in found]
        assert times == sorted(times, reverse=True), times
        own = [job.id for job in await self.all(jobs.list(extra_query={"metadata[suite]": UNIQUE}))]
        assert own == ([self.own.id] if self.knows_method() else []), own
        without = [job.id for job in await self.all(jobs.list(extra_query={"metadata": "null"}))]
        assert (self.own.id in without) == (not self.knows_method())

    async def a_job_from_a_tuned_model(self) -> None:
        """It starts from a checkpoint of the run's own model."""
        checkpoints = await self.all(self.client.fine_tuning.jobs.checkpoints.list(self.own.id))
        job = await self.another("from", model=checkpoints[-1].fine_tuned_model_checkpoint)
        await self.now(self.client.fine_tuning.jobs.cancel(job.id))

    async def bad_jobs(self) -> None:
        jobs = self.client.fine_tuning.jobs
        error = await self.refused(
            openai.BadRequestError, lambda: jobs.create(model="gpt-4o-mini", training_file="file-nowhere")
        )
        assert error.param == "training_file", error.body
        train = await self.now(self.client.files.create(file=rows(20, "bad"), purpose="fine-tune"))
        error = await self.refused(
            openai.BadRequestError,
            lambda: jobs.create(model="gpt-4o-mini", training_file=train.id, hyperparameters={"n_epochs": 5000}),
        )
        assert "n_epochs" in (error.param or ""), error.body
        await self.refused(openai.NotFoundError, lambda: jobs.create(model="no/such-base", training_file=train.id))
        for call in (jobs.retrieve, jobs.cancel, jobs.list_events, jobs.checkpoints.list):
            await self.refused(openai.NotFoundError, lambda call=call: call("ftjob-nowhere"))

    async def too_few_examples(self) -> None:
        few = await self.now(self.client.files.create(file=rows(7, "few"), purpose="fine-tune"))
        job = await self.now(self.client.fine_tuning.jobs.create(model=MODEL, training_file=few.id))
        ended = await self.end(job.id)
        assert ended.status == "failed" and ended.error, ended
        assert "7 example(s)" in ended.error.message and "at least 10" in ended.error.message, ended.error

    # --- lost answers -----------------------------------------------------------------------------------------

    async def timeouts(self) -> None:
        """Every first answer is lost, the client waits in vain and asks again; what it asks for is done once."""
        client = self.connect(base_url=self.lossy_url, timeout=2.0, max_retries=4)
        lost = iter(range(99))

        def once() -> dict:
            return {"extra_headers": {"x-lose-first-answer": f"{UNIQUE}-{next(lost)}"}}

        jobs, uploads, about = client.fine_tuning.jobs, client.uploads, {"mime_type": "text/plain", "purpose": "batch"}
        whole = await self.now(uploads.create(bytes=3, filename="a", **about))
        part = await self.now(uploads.parts.create(upload_id=whole.id, data=b"{}\n"))
        other = await self.now(uploads.create(bytes=3, filename="b", **about))
        done, cancelled, found = await self.together(
            lambda: uploads.complete(upload_id=whole.id, part_ids=[part.id], **once()),
            lambda: uploads.cancel(other.id, **once()),
            lambda: jobs.retrieve(self.own.id, **once()),
        )
        assert (done.status, cancelled.status, found.id) == ("completed", "cancelled", self.own.id)
        if "x-stainless-retry-count" not in inspect.getsource(openai._base_client):
            raise Left("word for it that it tries again: a second try is a second job, and 404 for what is deleted")
        assert (await self.now(client.files.delete(done.file.id, **once()))).deleted
        job = await self.another("lost", client, **once())
        listed = await self.all(self.client.fine_tuning.jobs.list(limit=50))
        assert [each.id for each in listed if each.training_file == job.training_file] == [job.id]
        assert (await self.now(jobs.pause(job.id, **once()))).status == "paused"
        assert (await self.now(jobs.resume(job.id, **once()))).status in RUNNING
        assert (await self.now(jobs.cancel(job.id, **once()))).id == job.id
        assert (await self.end(job.id)).status == "cancelled"

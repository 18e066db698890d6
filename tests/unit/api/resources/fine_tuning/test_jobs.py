"""Jobs, events and checkpoints as OpenAI's client reads them, however the jobs came to be."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from services.api.resources.files.store import find
from shared.events import Reference
from tests.support.data.job_history import T0, DeliveredEvent, JobHistory
from tests.unit.api.conftest import Api
from tests.unit.api.resources.fine_tuning.conftest import BASE, Tuning

CHECKPOINTS = [{"step": step, "prefix": f"c/step-{step}/", "train_loss": 1.0, "valid_loss": 1.1} for step in (1, 2, 3)]
RESULTS = Reference(bucket="tunestream", key="results.csv", etag="e", size=3, sha256="0" * 64)


class Trained(JobHistory):
    """A job with checkpoints and a result file."""

    @property
    def trained(self) -> Any:
        event = super().trained
        more = {
            "checkpoints": CHECKPOINTS,
            "artifacts": {"results.csv": RESULTS},
            "hyperparameters": {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 1.5, "beta": None},
        }
        return event.model_validate(event.model_dump() | more)


async def take(api: Api, job: JobHistory, until: str = "inference") -> JobHistory:
    await job.write_documents(api.objects, until=until)
    await api.take(job.events if until == "inference" else job.events[:6])
    return job


@pytest.fixture
async def done(api: Api) -> JobHistory:
    return await take(api, Trained())


async def test_a_dropped_job_that_has_succeeded(tuning: Tuning, client: AsyncOpenAI, done: JobHistory) -> None:
    [job] = (await client.fine_tuning.jobs.list()).data
    assert job == await client.fine_tuning.jobs.retrieve(done.job_id)
    assert (job.status, job.fine_tuned_model, job.trained_tokens) == ("succeeded", done.model, 1234)
    assert (job.training_file, job.validation_file) == ("s3://datasets/support.jsonl", None)
    assert (job.created_at, job.finished_at, job.estimated_finish) == (int(T0), int(T0 + 40), None)
    assert job.hyperparameters.model_dump(exclude_none=True) == {
        "n_epochs": 3,
        "batch_size": 4,
        "learning_rate_multiplier": 1.5,
    }
    assert job.result_files == [f"file-result-{done.job_id.removeprefix('ftjob-')}"]
    more: dict[str, Any] = job.model_extra or {}
    assert (more["user_provided_suffix"], more["alias"]) == ("support", "support")
    assert more["evaluation"]["passed"] is True and more["deployment"]["alias"] == "support"
    required = {"id", "object", "created_at", "model", "organization_id", "training_file", "validation_file"}
    required |= {"hyperparameters", "result_files", "seed", "status", "error", "finished_at", "fine_tuned_model"}
    raw = (await tuning.api.get(f"/v1/fine_tuning/jobs/{done.job_id}")).keys()
    assert required | {"trained_tokens", "estimated_finish", "method", "metadata", "integrations"} <= raw


async def test_its_result_file_is_the_one_of_the_training(tuning: Tuning, done: JobHistory) -> None:
    [file_id] = (await tuning.api.get(f"/v1/fine_tuning/jobs/{done.job_id}"))["result_files"]
    objects, projection = tuning.api.objects, tuning.api.projection
    file = await find(objects, projection, file_id, "default")
    assert file is not None
    assert (file.content, file.purpose, file.file_id) == (RESULTS, "fine-tune-results", file_id)
    for other, project in ((file_id, "acme"), ("file-result-", "default"), ("file-result-x", "default")):
        assert await find(objects, projection, other, project) is None


async def test_a_job_in_its_training(tuning: Tuning, client: AsyncOpenAI) -> None:
    running = await take(tuning.api, JobHistory(2), until="validate")
    job = await client.fine_tuning.jobs.retrieve(running.job_id)
    assert (job.status, job.finished_at, job.result_files, job.error) == ("running", None, [], None)
    assert (job.hyperparameters.n_epochs, job.fine_tuned_model, job.trained_tokens) == ("auto", None, None)


async def test_the_hyperparameters_are_numbers_once_the_trainer_has_chosen_them(
    tuning: Tuning, client: AsyncOpenAI
) -> None:
    running = await take(tuning.api, JobHistory(2), until="validate")
    before = len((await client.fine_tuning.jobs.list_events(running.job_id)).data)
    chosen = running.progress("trainer", data={"n_epochs": 2, "batch_size": 8, "learning_rate_multiplier": 1.5})
    await tuning.api.take([DeliveredEvent(chosen, "ftevent-chosen", T0 + 30)])
    job = await client.fine_tuning.jobs.retrieve(running.job_id)
    found = job.hyperparameters
    assert (found.n_epochs, found.batch_size, found.learning_rate_multiplier) == (2, 8, 1.5)
    assert len((await client.fine_tuning.jobs.list_events(running.job_id)).data) == before, "the history is for people"


@pytest.mark.parametrize(("ago", "left", "expected"), [(0, 60.0, 60), (30, 60.0, 30), (90, 60.0, 0)])
async def test_the_estimated_finish_is_what_the_stage_said(
    tuning: Tuning, client: AsyncOpenAI, ago: float, left: float, expected: float
) -> None:
    api, job = tuning.api, JobHistory(2)
    await job.write_documents(api.objects, until="validate")
    for state, more in (("started", {}), ("running", {"step": 1, "total_steps": 2, "eta_seconds": left})):
        event = job.progress("trainer", state, attempt=1, **more)
        await api.take([DeliveredEvent(event, f"ftevent-{state}", api.clock.now - ago)])
    found = await client.fine_tuning.jobs.retrieve(job.job_id)
    assert found.estimated_finish == pytest.approx(int(api.clock.now) + expected, abs=1)


async def test_what_an_earlier_attempt_said_of_the_end_is_over(tuning: Tuning, client: AsyncOpenAI) -> None:
    api, job = tuning.api, JobHistory(2)
    await job.write_documents(api.objects, until="validate")
    for attempt, more in ((1, {"step": 1, "total_steps": 2, "eta_seconds": 60.0}), (2, {"message": "training: load"})):
        event = job.progress("trainer", attempt=attempt, **more)
        await api.take([DeliveredEvent(event, f"ftevent-{attempt}", api.clock.now - 2 + attempt)])
    assert (await client.fine_tuning.jobs.retrieve(job.job_id)).estimated_finish is None
    shown = (await tuning.api.client.get(f"/jobs/{job.job_id}")).json()
    assert shown["stages"]["trainer"]["eta_seconds"] is None


async def test_progress_within_a_step_moves_the_estimate_and_adds_nothing_to_the_history(
    tuning: Tuning, client: AsyncOpenAI
) -> None:
    api, job = tuning.api, JobHistory(2)
    await job.write_documents(api.objects, until="validate")
    before = len((await client.fine_tuning.jobs.list_events(job.job_id)).data)
    figures = {"tokens_per_second": 1234.5, "mfu": 0.4, "memory_bytes": 5, "peak_memory_bytes": 7}
    data = {"progress": {"phase": "epoch 1", "seconds": 9.0}, **figures}
    event = job.progress("trainer", attempt=1, step=3, total_steps=9, eta_seconds=75.0, data=data)
    await api.take([DeliveredEvent(event, "ftevent-speech", api.clock.now)])
    found = await client.fine_tuning.jobs.retrieve(job.job_id)
    assert found.estimated_finish == pytest.approx(int(api.clock.now) + 75, abs=1)
    stage = (await tuning.api.client.get(f"/jobs/{job.job_id}")).json()["stages"]["trainer"]
    assert (stage["step"], stage["total_steps"], stage["data"]) == (3, 9, data)
    assert len((await client.fine_tuning.jobs.list_events(job.job_id)).data) == before


async def test_the_error_of_a_job(tuning: Tuning, client: AsyncOpenAI) -> None:
    job = JobHistory(3)
    await job.write_documents(tuning.api.objects, until="ingest")
    event = job.failed("validate", "invalid_training_file").model_copy(update={"param": "training_file"})
    await job.finish(tuning.api.objects, "validate", event, 3.0, "failed")
    found = await client.fine_tuning.jobs.retrieve(job.job_id)
    assert found.status == "failed" and found.error is not None
    assert found.error.model_dump() == {
        "code": "invalid_training_file",
        "message": "Lower batch_size.",
        "param": "training_file",
    }
    events = (await client.fine_tuning.jobs.list_events(job.job_id)).data
    last = next(each for each in events if each.level == "error")
    assert isinstance(last.data, dict) and last.data["error_code"] == "invalid_training_file"


async def test_lists_page_by_cursor_and_filter_by_metadata(tuning: Tuning, client: AsyncOpenAI) -> None:
    file, made = await tuning.file(), []
    for number in range(7):
        tuning.api.clock.now += 1
        metadata = {"team": "a" if number % 2 else "b", 'it\'s ["n"]': str(number)} if number else None
        job = await client.fine_tuning.jobs.create(model=BASE, training_file=file, metadata=metadata)
        made.append(job.id)
    made.reverse()
    assert [job.id async for job in client.fine_tuning.jobs.list(limit=2)] == made
    page = await client.fine_tuning.jobs.list(limit=2, after=made[1])
    assert ([job.id for job in page.data], page.has_more) == (made[2:4], True)
    team = [job.id async for job in client.fine_tuning.jobs.list(limit=2, metadata={"team": "a"})]
    assert team == [made[1], made[3], made[5]]
    both = await client.fine_tuning.jobs.list(metadata={"team": "b", 'it\'s ["n"]': "2"})
    assert [job.id for job in both.data] == [made[4]]
    without = await client.fine_tuning.jobs.list(extra_query={"metadata": "null"})
    assert [job.id for job in without.data] == [made[6]]
    await tuning.api.sql("UPDATE jobs SET state = '{' WHERE job_id = ?", made[0])
    assert len((await client.fine_tuning.jobs.list(metadata={"team": "a"})).data) == 3
    damaged = (await client.fine_tuning.jobs.list(limit=1)).data[0]
    assert (damaged.id, damaged.status, damaged.result_files) == (made[0], "validating_files", [])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("jobs?limit=0", 400),
        ("jobs?limit=101", 400),
        ("jobs?limit=x", 400),
        ("jobs?metadata=x", 400),
        ("jobs?after=ftjob-none", 404),
        ("jobs/ftjob-none", 404),
        ("jobs/..%2F..", 404),
        ("jobs/ftjob-none/events", 404),
        ("jobs/{done}/events?after=x", 404),
        ("jobs/{done}/checkpoints?after=x", 404),
    ],
)
async def test_wrong_reads(tuning: Tuning, done: JobHistory, path: str, status: int) -> None:
    answer = await tuning.api.client.get(f"/v1/fine_tuning/{path.format(done=done.job_id)}")
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]


async def test_events_are_newest_first_with_openais_words_and_figures(client: AsyncOpenAI, done: JobHistory) -> None:
    events = [event async for event in client.fine_tuning.jobs.list_events(done.job_id, limit=3)]
    events.reverse()
    words = [event.message for event in events]
    assert words[0] == f"Created fine-tuning job: {done.job_id}"
    assert words[1] == "Validating training file: s3://datasets/support.jsonl"
    assert words[2:4] == ["Files validated, moving job to queued state", "Fine-tuning job started"]
    assert words[-1] == "The job has successfully completed"
    assert f"New fine-tuned model created: {done.model}" in words
    metrics = [event for event in events if event.type == "metrics"]
    assert metrics[1].message == "Step 2/3: training loss=1, validation loss=1.1"
    assert metrics[1].data == {"step": 2, "total_steps": 3, "train_loss": 1.0, "valid_loss": 1.1}
    assert {event.object for event in events} == {"fine_tuning.job.event"}


async def test_checkpoints_are_newest_first_and_name_models(client: AsyncOpenAI, done: JobHistory) -> None:
    checkpoints = client.fine_tuning.jobs.checkpoints
    found = [each async for each in checkpoints.list(done.job_id, limit=1)]
    assert [each.step_number for each in found] == [3, 2, 1]
    assert len({each.id for each in found}) == 3 and found[0].id.startswith("ftckpt_")
    assert found[0].fine_tuned_model_checkpoint == f"{done.model}:ckpt-step-3"
    assert (found[0].fine_tuning_job_id, found[0].object) == (done.job_id, "fine_tuning.job.checkpoint")
    # the history of step 3 says more than the checkpoint
    assert (found[0].metrics.step, found[0].metrics.train_loss, found[0].metrics.valid_loss) == (3, 0.5, 0.6)
    assert (found[2].metrics.train_loss, found[2].metrics.valid_loss) == (1.5, 1.1)


async def test_a_job_that_is_not_trained_has_no_checkpoints(tuning: Tuning, client: AsyncOpenAI) -> None:
    running = await take(tuning.api, JobHistory(2), until="validate")
    assert (await client.fine_tuning.jobs.checkpoints.list(running.job_id)).data == []


async def test_a_job_is_cancelled_and_one_that_has_ended_is_not(
    tuning: Tuning, client: AsyncOpenAI, done: JobHistory
) -> None:
    job = await client.fine_tuning.jobs.create(model=BASE, training_file=await tuning.file())
    assert (await client.fine_tuning.jobs.cancel(job.id)).status == "validating_files"
    assert await tuning.api.objects.get(f"jobs/{job.id}/control/cancel-1.json")
    with pytest.raises(openai.BadRequestError) as caught:
        await client.fine_tuning.jobs.cancel(done.job_id)
    assert caught.value.response.headers["x-should-retry"] == "false"


async def test_a_job_belongs_to_its_project_on_all_routes(tuning: Tuning, client: AsyncOpenAI) -> None:
    acme = tuning.client("acme")
    ours = await client.fine_tuning.jobs.create(model=BASE, training_file=await tuning.file())
    theirs = await acme.fine_tuning.jobs.create(model=BASE, training_file=await tuning.file(project="acme"))
    assert [job.id for job in (await client.fine_tuning.jobs.list()).data] == [ours.id]
    assert [job.id for job in (await acme.fine_tuning.jobs.list()).data] == [theirs.id]
    http, headers = tuning.api.client, {"openai-project": "acme"}
    paths = [f"/v1/fine_tuning/jobs/{ours.id}{end}" for end in ("", "/events", "/checkpoints")]
    paths += [f"/jobs/{ours.id}{end}" for end in ("", "/events", "/report", "/files/report.json")]
    posts = [f"/v1/fine_tuning/jobs/{ours.id}/cancel", f"/jobs/{ours.id}/cancel", f"/jobs/{ours.id}/retry"]
    for method, path in [*(("GET", path) for path in paths), *(("POST", path) for path in posts)]:
        unknown = path.replace(ours.id, "ftjob-none")
        answers = [await http.request(method, each, headers=headers) for each in (path, unknown)]
        texts = [each.text.replace(ours.id, "ftjob-none") for each in answers]
        assert {each.status_code for each in answers} == {404} and texts[0] == texts[1]
    assert [job["id"] for job in (await http.get("/jobs", headers=headers)).json()["data"]] == [theirs.id]
    answer = await http.get("/jobs", headers=headers, params={"after": ours.id})
    assert answer.status_code == 404
    assert not await tuning.api.objects.list(f"jobs/{ours.id}/control/")


async def test_a_retry_of_a_job_stays_in_its_project(tuning: Tuning) -> None:
    job = JobHistory(3)
    job.job = job.job.model_copy(update={"project": "acme"})
    await job.write_documents(tuning.api.objects, until="validate")
    await job.finish(tuning.api.objects, "trainer", job.failed(), 9.0, "failed")
    headers = {"openai-project": "acme"}
    made = (await tuning.api.client.post(f"/jobs/{job.job_id}/retry", headers=headers)).json()
    await tuning.ingest()
    jobs = (await tuning.api.client.get("/v1/fine_tuning/jobs", headers=headers)).json()["data"]
    assert {each["id"] for each in jobs} == {job.job_id, made["id"]}

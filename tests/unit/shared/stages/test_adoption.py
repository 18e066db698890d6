"""A retry takes over what its parent has decided, and nothing of a job that is not its parent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shared import ids
from shared.events import (
    NEXT_STAGE,
    RUNNER_STAGES,
    DatasetValidated,
    EvalCompleted,
    Event,
    Job,
    JobSpec,
    Lora,
    Origin,
    Retry,
    StageName,
    TrainingCompleted,
)
from shared.settings import StageSettings
from shared.stages import outbox, pending
from shared.stages.adoption import adopt, attempts_of_parents, retry_of
from shared.stages.ledger import attempt_prefix, job_key, pending_key, stage_prefix
from shared.stages.runner import StageRunner
from shared.stages.stage import STAGES, Attempt, Work
from shared.tasks import cancel_and_wait
from tests.support.data.job_history import T0, TRACE, JobHistory
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.store import FakeStore
from tests.support.waiting import until

TRACEPARENT = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"


@pytest.fixture
async def parent() -> JobHistory:
    return JobHistory()


@pytest.fixture
async def store(parent: JobHistory) -> FakeStore:
    """The ledger after the parent has ended."""
    objects = FakeStore(clock=lambda: T0 + 3600)
    await parent.write_documents(objects)
    return objects


async def make(objects: FakeStore, parent: Job, stage: StageName, *, rerun: int = 1, **changed: Any) -> Job:
    """A retry of `parent` from `stage`, as ingest makes it."""
    asked = Retry(parent_job=parent.job_id, from_stage=stage, rerun=rerun, at=T0 + 60, traceparent=TRACEPARENT)
    job = retry_of(parent, asked, TRACEPARENT).model_copy(update=changed)
    await objects.create(job_key(job.job_id), job.model_dump_json().encode())
    return job


def test_a_retry_has_another_id_model_and_trace_and_is_otherwise_its_parent(parent: JobHistory) -> None:
    asked = Retry(parent_job=parent.job_id, from_stage="trainer", rerun=3, at=T0 + 60, traceparent=TRACEPARENT)
    job, again = (retry_of(parent.job, asked, TRACEPARENT) for _ in range(2))
    assert job == again
    assert (job.spec.rerun, job.created_at, job.traceparent) == (3, T0 + 60, TRACEPARENT)
    assert TRACE not in job.traceparent
    assert job.job_id != parent.job_id
    assert job.model == f"ft:tiny-base:tunestream:support:{job.job_id.removeprefix('ftjob-')[:8]}"
    assert job.origin == Origin(
        kind="drop", source="datasets/support.jsonl", parent_job=parent.job_id, from_stage="trainer"
    )
    same = {"dataset", "validation_file", "base", "start_from", "alias"}
    assert job.model_dump(include=same) == parent.job.model_dump(include=same)


def test_a_retry_of_a_job_of_a_version_whose_default_was_nf4_has_the_id_that_this_version_gives_it(
    parent: JobHistory,
) -> None:
    asked = Retry(parent_job=parent.job_id, from_stage="trainer", rerun=3, at=T0 + 60, traceparent=TRACEPARENT)
    spec = parent.job.spec.model_copy(update={"lora": Lora(quantization="nf4")})
    dataset = parent.job.dataset
    job_id = ids.job_id(dataset.bucket, dataset.key, dataset.sha256, parent.job.spec)
    old = parent.job.model_copy(update={"spec": spec, "job_id": job_id})
    now = parent.job.model_copy(update={"job_id": job_id})
    assert retry_of(old, asked, TRACEPARENT).job_id == retry_of(now, asked, TRACEPARENT).job_id
    assert retry_of(old, asked, TRACEPARENT).spec.lora.quantization == "nf4"


@pytest.mark.parametrize("first", RUNNER_STAGES)
async def test_every_stage_before_the_first_adopts_and_the_others_work(
    first: StageName, store: FakeStore, parent: JobHistory
) -> None:
    job = await make(store, parent.job, first)
    before = set(store.held)
    adopted = {stage: await adopt(store, job, stage, "me") for stage in RUNNER_STAGES}
    expected = RUNNER_STAGES[: RUNNER_STAGES.index(first)]
    assert tuple(stage for stage, result in adopted.items() if result) == job.adopts == expected
    results = {stage_prefix(job.job_id, stage) + "result.json" for stage in expected}
    entries = {pending_key(NEXT_STAGE[stage], T0 + 3600, job.job_id) for stage in expected}
    assert set(store.held) - before == results | entries


async def test_an_adopted_result_names_the_new_job_and_refers_to_the_files_of_the_parent(
    store: FakeStore, parent: JobHistory
) -> None:
    job = await make(store, parent.job, "inference")
    events: list[Any] = []
    for stage in job.adopts:
        result = await adopt(store, job, stage, "me")
        assert result is not None
        assert (result.job_id, result.stage, result.outcome, result.finished_at) == (
            *(job.job_id, stage, "completed"),
            T0 + 3600,
        )
        theirs = await outbox.read(store, parent.job_id, stage)
        assert theirs is not None and theirs.event.id != result.event.id
        events.append(result.event.event())
    names = {"job_id": job.job_id, "model": job.model}
    assert events == [
        parent.validated.model_copy(update={"job_id": job.job_id}),
        parent.trained.model_copy(update=names),
        parent.evaluated.model_copy(update=names),
    ]
    assert [type(event) for event in events] == [DatasetValidated, TrainingCompleted, EvalCompleted]


async def test_a_retry_of_a_retry_adopts_what_that_has_adopted(store: FakeStore, parent: JobHistory) -> None:
    first = await make(store, parent.job, "evaluator")
    for stage in first.adopts:
        await adopt(store, first, stage, "me")
    second = await make(store, first, "evaluator", rerun=2)
    result = await adopt(store, second, "trainer", "me")
    assert result is not None
    assert result.event.event() == parent.trained.model_copy(update={"job_id": second.job_id, "model": second.model})


async def test_adopting_twice_gives_the_first_result(store: FakeStore, parent: JobHistory) -> None:
    job = await make(store, parent.job, "evaluator")
    results = [await adopt(store, job, "trainer", owner) for owner in ("me", "another")]
    assert results[0] == results[1]


@pytest.mark.parametrize("outcome", ["failed", "cancelled", None])
async def test_a_stage_without_a_completed_result_works_itself(
    outcome: str | None, store: FakeStore, parent: JobHistory
) -> None:
    await store.delete(stage_prefix(parent.job_id, "trainer") + "result.json")
    if outcome:
        await parent.finish(store, "trainer", parent.failed(), 9.0, outcome)
    job = await make(store, parent.job, "evaluator")
    assert await adopt(store, job, "trainer", "me") is None


OTHER = {
    "dataset": {"sha256": "0" * 64},
    "spec": JobSpec(suffix="support", seed=5, metadata={"team": "help"}),
    "base": "another-base",
}


@pytest.mark.parametrize("field", OTHER)
async def test_only_a_job_of_the_same_dataset_and_settings_adopts(
    field: str, store: FakeStore, parent: JobHistory
) -> None:
    """A program outside may write any origin into its event."""
    changed = OTHER[field]
    value = parent.job.dataset.model_copy(update=changed) if isinstance(changed, dict) else changed
    await store.put(attempt_prefix(parent.job_id, "trainer", 1) + "checkpoints/step-1/manifest.json", b"{}")
    await store.delete(stage_prefix(parent.job_id, "trainer") + "result.json")
    job = await make(store, parent.job, "trainer", **{field: value})
    assert await adopt(store, job, "validate", "me") is None
    assert await attempts_of_parents(store, job, "trainer") == []


@pytest.mark.parametrize("named", ["", "../x", "ftjob-" + "a" * 2000, "ftjob-a/../b", "ftjob-\x00", "ftjob-unknown"])
async def test_a_parent_that_is_no_job_is_none(named: str, store: FakeStore, parent: JobHistory) -> None:
    # events with such a name are refused before; a manifest that an older version wrote may hold one
    origin = Origin.model_construct(parent_job=named, from_stage="trainer")
    job = await make(store, parent.job, "trainer", origin=origin)
    assert await adopt(store, job, "validate", "me") is None
    assert await attempts_of_parents(store, job, "trainer") == []
    assert not [key for _, key in store.calls if named and named in key and "unknown" not in named]


@pytest.mark.parametrize("stage", ["ingest", "janitor", "", None])
async def test_a_stage_that_is_not_known_adopts_nothing(
    stage: str | None, store: FakeStore, parent: JobHistory
) -> None:
    job = await make(store, parent.job, "trainer", origin=Origin(parent_job=parent.job_id, from_stage=stage))
    assert job.adopts == ()
    assert [await adopt(store, job, name, "me") for name in RUNNER_STAGES] == [None] * 4


# --- attempts to continue -------------------------------------------------------------------------------------------


async def attempted(objects: FakeStore, job: Job, *numbers: int) -> None:
    for number in numbers:
        await objects.put(attempt_prefix(job.job_id, "trainer", number) + "checkpoints/step-1/manifest.json", b"{}")


async def test_a_retry_continues_the_attempts_of_all_its_parents_newest_first(
    store: FakeStore, parent: JobHistory
) -> None:
    await store.delete(stage_prefix(parent.job_id, "trainer") + "result.json")
    first = await make(store, parent.job, "trainer")
    second = await make(store, first, "trainer", rerun=2)
    await attempted(store, parent.job, 1, 2, 10)
    await attempted(store, first, 1)
    expected = [(first, 1), (parent.job, 10), (parent.job, 2), (parent.job, 1)]
    assert await attempts_of_parents(store, second, "trainer") == [
        attempt_prefix(job.job_id, "trainer", number) for job, number in expected
    ]
    assert await attempts_of_parents(store, second, "evaluator") == []


async def test_a_training_that_had_completed_is_done_anew(store: FakeStore, parent: JobHistory) -> None:
    await attempted(store, parent.job, 1)
    job = await make(store, parent.job, "trainer")
    assert await attempts_of_parents(store, job, "trainer") == []


async def test_after_a_new_validation_no_earlier_training_is_continued(store: FakeStore, parent: JobHistory) -> None:
    await store.delete(stage_prefix(parent.job_id, "trainer") + "result.json")
    await attempted(store, parent.job, 1)
    first = await make(store, parent.job, "validate")
    await attempted(store, first, 1)
    second = await make(store, first, "trainer", rerun=2)
    assert await attempts_of_parents(store, first, "trainer") == []
    assert await attempts_of_parents(store, second, "trainer") == [attempt_prefix(first.job_id, "trainer", 1)]


async def test_jobs_that_name_each_other_as_parents_are_no_endless_line(store: FakeStore, parent: JobHistory) -> None:
    await store.delete(stage_prefix(parent.job_id, "trainer") + "result.json")
    job = await make(store, parent.job, "trainer")
    back = parent.job.model_copy(update={"origin": Origin(parent_job=job.job_id, from_stage="trainer")})
    await store.put(job_key(parent.job_id), back.model_dump_json().encode())
    await attempted(store, parent.job, 1)
    assert await attempts_of_parents(store, job, "trainer") == [attempt_prefix(parent.job_id, "trainer", 1)]


# --- the runner -----------------------------------------------------------------------------------------------------


async def never(attempt: Attempt) -> Any:
    raise AssertionError("it has a result to adopt")


def runner(stage: StageName, work: Work, store: FakeStore, bus: FakeBus) -> StageRunner:
    return StageRunner(
        STAGES[stage],
        work,
        ledger=store,
        bus=bus,
        owner=stage,
        settings=StageSettings(poll_seconds=0.01, discover_seconds=0.01),
    )


@asynccontextmanager
async def running(*runners: StageRunner) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each.run()) for each in runners]
    try:
        yield
    finally:
        await cancel_and_wait(*tasks)


async def test_the_runner_publishes_what_it_adopts_without_work(store: FakeStore, parent: JobHistory) -> None:
    """Also where the stages before have adopted nothing yet: each reads the parent, and none waits for another."""
    job, bus = await make(store, parent.job, "inference"), FakeBus()
    await pending.add(store, "trainer", job.job_id, T0)
    mine = stage_prefix(job.job_id, "trainer")
    async with running(runner("trainer", never, store, bus)):
        await until(lambda: mine + "published.json" in store.held, "the result is published")
    assert [key for key in store.held if key.startswith(mine)] == [f"{mine}result.json", f"{mine}published.json"]
    [published] = [each for each in bus.published if each.subject == job.job_id]
    assert isinstance(published.event, TrainingCompleted)
    assert (published.event.model, published.traceparent) == (job.model, TRACEPARENT)


async def test_without_a_bus_a_retry_goes_from_its_first_stage_to_its_end(store: FakeStore, parent: JobHistory) -> None:
    for stage in ("trainer", "evaluator", "inference"):
        await store.delete(stage_prefix(parent.job_id, stage) + "result.json")
    await parent.finish(store, "trainer", parent.failed(), 9.0, "failed")
    job, bus = await make(store, parent.job, "trainer"), FakeBus()
    bus.available = False
    await pending.add(store, "validate", job.job_id, T0)
    asked: list[tuple[str, dict[str, Any]]] = []
    events = {"trainer": parent.trained, "evaluator": parent.evaluated, "inference": parent.ended}

    async def work(attempt: Attempt) -> Event:
        asked.append((attempt.stage, attempt.request))
        return events[attempt.stage].model_copy(update={"job_id": job.job_id})

    stages: tuple[StageName, ...] = ("inference", "evaluator", "trainer")
    async with running(runner("validate", never, store, bus), *(runner(stage, work, store, bus) for stage in stages)):
        last = stage_prefix(job.job_id, "inference") + "result.json"
        await until(lambda: last in store.held, "the retry has ended")
    assert [stage for stage, _ in asked] == ["trainer", "evaluator", "inference"]
    assert asked[0][1]["job_id"] == job.job_id
    assert asked[0][1]["train"] == parent.validated.train.model_dump(mode="json")
    theirs = await outbox.read(store, parent.job_id, "trainer")
    assert theirs is not None and theirs.outcome == "failed"

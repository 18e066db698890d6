"""Retries: a new job that begins from a later stage, and takes over what its parent has decided before. See
docs/architecture.md, "The stage protocol".

Nothing is copied: the results that a retry adopts refer to the folders of the parent. Each stage adopts its own result,
so no service writes a result of another.
"""

from __future__ import annotations

from shared import ids
from shared.events import Event, Job, Retry, StageName, StageResult
from shared.stages import outbox
from shared.stages.ledger import Ledger, attempt_prefix, job_key, stage_prefix


def retry_of(parent: Job, retry: Retry, traceparent: str) -> Job:
    """The manifest of a retry: dataset, settings, base and alias of the parent, under a new id. The same `retry` always
    has the same id."""
    spec = parent.spec.model_copy(update={"rerun": retry.rerun})
    place = parent.dataset.bucket, parent.dataset.key, parent.dataset.sha256
    derived = ids.as_derived(parent.job_id, *place, parent.spec)
    job_id = ids.job_id(*place, derived.model_copy(update={"rerun": retry.rerun}))
    about = {"parent_job": parent.job_id, "parent_version": None, "from_stage": retry.from_stage}
    return parent.model_copy(
        update={
            "job_id": job_id,
            "created_at": retry.at,
            "spec": spec,
            "model": f"{parent.model.rpartition(':')[0]}:{ids.job_prefix_of(job_id)}",
            "origin": parent.origin.model_copy(update=about),
            "traceparent": traceparent,
        }
    )


async def adopt(ledger: Ledger, job: Job, stage: StageName, owner: str) -> StageResult | None:
    """Decide the stage of a retry by the parent's result. None: the stage has to work.

    Raises:
        StoreUnavailable: the ledger is away.
    """
    if stage not in job.adopts or (parent := await _parent(ledger, job)) is None:
        return None
    found = await outbox.read(ledger, parent.job_id, stage)
    if found is None or found.outcome != "completed":
        return None
    event = _renamed(found.event.event(), job)
    mine = outbox.result_of(job.job_id, stage, 0, owner, "completed", event, ledger.now())
    return await outbox.commit(ledger, mine)


async def attempts_of_parents(ledger: Ledger, job: Job, stage: StageName) -> list[str]:
    """The prefixes of the parents' attempts that the stage of a retry may continue, newest first.

    They are those of the jobs that it is a retry of, and that those are retries of, if each begins from this stage. The
    attempts of a parent whose stage completed are left out: a user who asks for that stage wants it done anew.

    Raises:
        StoreUnavailable: the ledger is away.
    """
    found: list[str] = []
    met = {job.job_id}
    while job.origin.from_stage == stage and (parent := await _parent(ledger, job)) and parent.job_id not in met:
        result = await outbox.read(ledger, parent.job_id, stage)
        if result is not None and result.outcome == "completed":
            break
        names = await ledger.folders(stage_prefix(parent.job_id, stage) + "attempt-")
        numbers = sorted((int(name.removeprefix("attempt-")) for name in names), reverse=True)
        found += [attempt_prefix(parent.job_id, stage, number) for number in numbers]
        met.add(parent.job_id)
        job = parent
    return found


async def _parent(ledger: Ledger, job: Job) -> Job | None:
    """The parent of a retry; None if there is none, or if it is another dataset's or has other settings. A program
    outside may name any job as the parent in its event, and must not get at the results of others."""
    named = job.origin.parent_job
    if named is None or not ids.is_job_id(named) or (found := await ledger.get(job_key(named))) is None:
        return None
    parent = Job.model_validate_json(found[0])
    return parent if _work(parent) == _work(job) else None


def _work(job: Job) -> Job:
    """What the results of a job depend on."""
    spec = job.spec.model_copy(update={"rerun": 0})
    names = {"job_id": "", "created_at": 0.0, "model": "", "alias": "", "origin": {}, "traceparent": ""}
    return job.model_copy(update={"spec": spec, **names})


def _renamed(event: Event, job: Job) -> Event:
    """The event of a parent's result, as one of `job`."""
    names = {"job_id": job.job_id, "model": job.model}
    return event.model_copy(update={name: value for name, value in names.items() if name in type(event).model_fields})

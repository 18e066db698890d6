"""Takes a sweep forward by whatever can be done now. Nothing is remembered between two calls: what a sweep has done is
in its documents, each is written before what follows from it, and each step can be repeated. So the process may die at
any moment, and two of them may even work at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from services.api.domain.state import FINAL, JobState
from services.api.domain.sweeps import decide
from services.api.domain.sweeps.documents import (
    Best,
    Documents,
    Outcome,
    Pruned,
    Sweep,
    SweepResult,
    Trial,
    best_key,
    pruned_key,
    sweep_result_key,
    trial_key,
)
from services.api.domain.sweeps.standing import Standing
from services.api.domain.sweeps.trial_job import job_of_trial
from services.api.projection import Projection
from services.api.resources.jobs.store import cancel, ring
from services.api.sweeps import search
from services.api.sweeps.standings import Standings
from services.api.sweeps.store import SweepStore
from shared import telemetry
from shared.access.tuned_models import is_deleted
from shared.errors import AlreadyExists
from shared.events import Asked, Job, ModelDeployed, Retry
from shared.http.errors import ApiError
from shared.stages.adoption import retry_of
from shared.stages.ledger import asked_key, job_key, retry_key
from shared.stages.publisher import Publisher
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)


class Controller:
    """One for all sweeps."""

    def __init__(
        self,
        objects: ObjectStore,
        store: SweepStore,
        projection: Projection,
        standings: Standings,
        bus: Publisher,
    ) -> None:
        self._objects = objects
        self._store = store
        self._projection = projection
        self._standings = standings
        self._bus = bus
        self._cancelled: set[str] = set()
        """Jobs that this process has asked to end, so that it does not ask every second."""

    async def step(self, documents: Documents) -> None:
        """Do what can be done now.

        Raises:
            TransientError, ConfigError, StoreRefused: the store, or the database, does not answer or refuses. The next
                call goes on.
        """
        for trial in documents.trials.values():
            await self._ask_for(trial, documents.sweep)
        standings = await self._standings.of(documents)
        if documents.cancelled:
            await self._end_trials(documents, standings)
        else:
            standings = await self._prune(documents, standings)
            if not await self._begin_trials(documents, standings):
                return
            standings = await self._standings.of(documents)
        if any(not standing.ended for standing in standings):
            return
        if documents.best is None and not documents.cancelled:
            documents.best = await self._choose(documents, standings)
        await self._finish(documents, standings)

    # --- trials -----------------------------------------------------------------------------------------------

    async def _begin_trials(self, documents: Documents, standings: list[Standing]) -> bool:
        """Begin as many as may run now. False: others are to follow that cannot begin yet."""
        sweep = documents.sweep
        while free := decide.slots(sweep, standings):
            if await self._standings.are_too_many(sweep):
                return False
            budget = sweep.spec.budget
            if sweep.budget is not None:
                budget = decide.next_share(sweep, documents.trials, standings, free)
                if budget is None:
                    return True
            number = max(documents.trials, default=-1) + 1
            parameters = await asyncio.to_thread(search.propose, sweep, standings, number)
            root = telemetry.JobRoot(None, links=(sweep.traceparent,))
            job = job_of_trial(sweep, number, parameters, budget, now=self._objects.now(), traceparent=root.traceparent)
            trial = Trial(number=number, parameters=parameters, job=job)
            if not await self._store.create(trial_key(sweep.sweep_id, number), trial):
                return False  # another process was faster; the next look reads what it has written
            root.emit(job.job_id)
            documents.trials[number] = trial
            await self._ask_for(trial, sweep)
            standings = await self._standings.of(documents)
        return True

    async def _ask_for(self, trial: Trial, sweep: Sweep) -> None:
        """Ask for the job of a trial, unless that was done."""
        job = trial.job
        if await self._projection.look_up(job.job_id):
            return
        asked = Asked(job=job, key_id=sweep.key_id, request=f"{sweep.sweep_id}/{trial.number}")
        with contextlib.suppress(AlreadyExists):  # another version of this service has written it
            await self._objects.create(asked_key(job.job_id), asked.model_dump_json().encode())
        ring(job.job_id, "resume", 1, job.traceparent, self._bus)
        await self._projection.accept(job)

    async def _prune(self, documents: Documents, standings: list[Standing]) -> list[Standing]:
        sweep = documents.sweep
        for standing in standings:
            if standing.number in documents.pruned or not standing.training:
                continue
            reason = await asyncio.to_thread(search.hopeless, sweep, standings, standing)
            if reason is None:
                continue
            point = standing.points[-1]
            pruned = Pruned(
                number=standing.number,
                fraction=point.fraction,
                valid_loss=point.valid_loss,
                reason=reason,
                at=self._objects.now(),
            )
            if await self._store.create(pruned_key(sweep.sweep_id, standing.number), pruned):
                log.info("a trial is pruned", extra={"job_id": standing.job_id})
                documents.pruned[standing.number] = pruned
        for number in documents.pruned:
            await self._cancel(documents.trials[number].job.job_id)
        return await self._standings.of(documents) if documents.pruned else standings

    async def _end_trials(self, documents: Documents, standings: list[Standing]) -> None:
        for standing in standings:
            if not standing.ended:
                await self._cancel(standing.job_id)
        if documents.best:
            await self._cancel(documents.best.job_id)

    async def _cancel(self, job_id: str) -> None:
        if job_id in self._cancelled or (state := await self._projection.look_up(job_id)) is None:
            return
        if state.status not in FINAL:
            try:
                await cancel(state, self._objects, self._bus, repeated=True)
            except ApiError:  # it has ended meanwhile
                log.info("a trial had ended before it was cancelled", extra={"job_id": job_id})
        self._cancelled.add(job_id)

    # --- the best trial ---------------------------------------------------------------------------------------

    async def _choose(self, documents: Documents, standings: list[Standing]) -> Best | None:
        """Decide which trial is evaluated. None: there is none."""
        deleted = frozenset(
            [each.job_id for each in standings if each.status == "succeeded" and await self._is_deleted(each)]
        )
        chosen = decide.best_of(standings, deleted)
        if chosen is None:
            return None
        trial, sweep_id = documents.trials[chosen.number], documents.sweep.sweep_id
        retry, job_id = await self._free_retry(trial.job)
        best = Best(number=chosen.number, job_id=job_id, retry=retry)
        await self._store.create(best_key(sweep_id), best)
        # what is there counts: another process may have been faster
        found = await self._store.find(sweep_id)
        return found.best if found else None

    async def _is_deleted(self, standing: Standing) -> bool:
        return await is_deleted(self._objects, standing.job_id)

    async def _free_retry(self, parent: Job) -> tuple[Retry, str]:
        """A request for the evaluation of a trial, under a counter that no job has, and the id of its job."""
        traceparent = telemetry.new_traceparent()
        rerun, now = parent.spec.rerun, self._objects.now()
        while True:
            rerun += 1
            retry = Retry(
                parent_job=parent.job_id, from_stage="evaluator", rerun=rerun, at=now, traceparent=traceparent
            )
            job_id = retry_of(parent, retry, traceparent).job_id
            if not [key for key in (retry_key(job_id), job_key(job_id)) if await self._objects.exists(key)]:
                return retry, job_id

    async def _evaluated(self, best: Best, parent: Job) -> JobState:
        """The job that evaluates the best trial, which is asked for unless that was done."""
        if state := await self._projection.look_up(best.job_id):
            return state
        with contextlib.suppress(AlreadyExists):  # another version of this service has written it
            await self._objects.create(retry_key(best.job_id), best.retry.model_dump_json().encode())
        ring(best.job_id, "resume", 1, best.retry.traceparent, self._bus)
        return await self._projection.accept(retry_of(parent, best.retry, best.retry.traceparent))

    # --- the end ----------------------------------------------------------------------------------------------

    async def _finish(self, documents: Documents, standings: list[Standing]) -> None:
        """Write the result, if the sweep is over."""
        best = documents.best
        if documents.cancelled and best and await self._projection.look_up(best.job_id) is None:
            best = None  # nobody has asked for its evaluation yet
        if best is None:
            outcome: Outcome = "cancelled" if documents.cancelled else "failed"
            error = None if documents.cancelled else decide.failure(standings)
            return await self._write(documents, SweepResult(outcome=outcome, error=error, finished_at=0.0), standings)
        state = await self._evaluated(best, documents.trials[best.number].job)
        if state.status not in FINAL:
            return None
        deployed = state.event_of(ModelDeployed)
        outcome = {"succeeded": "succeeded", "failed": "failed"}.get(state.status, "cancelled")  # type: ignore[assignment]
        result = SweepResult(
            outcome=outcome,
            finished_at=0.0,
            error=decide.evaluation_failed(state.job_id, state.failure) if outcome == "failed" else None,
            best=best.number,
            job_id=best.job_id,
            model=state.manifest.model if state.manifest else None,
            promoted=deployed is not None,
        )
        return await self._write(documents, result, standings)

    async def _write(self, documents: Documents, result: SweepResult, standings: list[Standing]) -> None:
        update = {"finished_at": self._objects.now(), "standings": tuple(standings)}
        sweep_id = documents.sweep.sweep_id
        if await self._store.create(sweep_result_key(sweep_id), result.model_copy(update=update)):
            log.info("a sweep is over", extra={"sweep_id": sweep_id, "outcome": result.outcome})

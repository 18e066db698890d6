"""How the trials of a sweep stand now: their documents, the projection of their jobs, and the curves of their
trainings."""

from __future__ import annotations

import asyncio

from services.api.database import ProjectionDatabase
from services.api.domain.sweeps.documents import Documents, Sweep
from services.api.domain.sweeps.standing import Standing, standing
from services.api.projection import Projection
from services.api.sweeps.curves import Curves
from shared.events import TrainingCompleted
from shared.store.objects import ObjectStore


class Standings:
    """Reads them. Every method raises `TransientError`, `ConfigError` or `StoreRefused` if store or database do not
    answer."""

    def __init__(self, objects: ObjectStore, database: ProjectionDatabase, projection: Projection) -> None:
        self._database = database
        self._projection = projection
        self._curves = Curves(objects, database)

    async def of(self, documents: Documents) -> list[Standing]:
        """One for each trial, in the order of their numbers. Those of a sweep that is over are in its result."""
        if documents.result is not None:
            return list(documents.result.standings)
        trials = [documents.trials[number] for number in sorted(documents.trials)]
        states = await asyncio.gather(*(self._projection.look_up(trial.job.job_id) for trial in trials))
        known = [(trial, state) for trial, state in zip(trials, states, strict=True) if state is not None]
        trained = [state.event_of(TrainingCompleted) for _, state in known]
        usages = [each.usage for each in trained if each is not None and each.usage is not None]
        found = list[Standing]()
        for trial, state in known:
            why = documents.pruned.get(trial.number)
            found.append(
                standing(
                    trial.number,
                    trial.parameters,
                    state,
                    await self._curves.of(state),
                    why_pruned=why.reason if why else None,
                    usages=usages,
                )
            )
        return found

    async def are_too_many(self, sweep: Sweep) -> bool:
        """Whether the project of a sweep may have no more jobs under way."""
        most = sweep.max_open_jobs
        return most is not None and await self._database.open_jobs(sweep.project) >= most

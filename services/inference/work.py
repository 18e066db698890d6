"""The last stage of a job: loads a model that passed the gate, and moves the alias to it. A model that did not pass, or
whose alias belongs to another dataset, can still be called by its id."""

from __future__ import annotations

from collections.abc import Callable

from services.inference.domain.deployments import AliasTaken, replaced_by, was_promoted
from services.inference.registry.adapters import Adapters
from services.inference.registry.aliases import Aliases
from services.inference.registry.first_requests import FirstRequests
from services.inference.trial import Trial
from shared import telemetry
from shared.events import Deployed, EvalCompleted, Job, JobProgress, ModelDeployed
from shared.stages.stage import Attempt


class DeployWork:
    """One attempt at deploying the model of a job."""

    def __init__(
        self,
        trial: Trial,
        adapters: Adapters,
        aliases: Aliases,
        first_requests: FirstRequests,
        *,
        url: str,
        now: Callable[[], float],
    ) -> None:
        """`url`: the address at which clients reach the endpoint, without `/v1`. `now`: seconds since the
        epoch by the store's clock."""
        self._trial = trial
        self._adapters = adapters
        self._aliases = aliases
        self._first_requests = first_requests
        self._url = url.rstrip("/")
        self._now = now

    async def __call__(self, attempt: Attempt) -> ModelDeployed | JobProgress:
        """Deploy the model, and return the event of the result: deployed, or not promoted and why.

        Raises:
            InputError: the adapter cannot be served here, or what is served is not what was trained.
            VllmUnavailable: vLLM is not up, or asleep.
            TransientError: the object store is away, or a disk is full.
            ConfigError: vLLM does not see the folder of the adapters.
            Cancelled: the user did not want the alias to move.
        """
        job = attempt.job
        evaluated = EvalCompleted.model_validate(attempt.request)
        if not evaluated.passed:
            return JobProgress(
                job_id=job.job_id,
                stage="inference",
                state="not_promoted",
                message=" ".join(evaluated.reasons) or "The gate did not pass.",
                data={"model": evaluated.model, "alias": job.alias},
            )
        await attempt.progress("started", f"Deploying {evaluated.model} as {job.alias}")
        # as the user spells it: an alias of an older version may have upper-case letters
        alias = job.spec.alias or job.alias
        # an earlier attempt may have moved the alias, and died: what was promoted needs no other trial
        before = await self._aliases.read(alias, job.project)
        if before is None or not was_promoted(before, job.job_id):
            await self._try_out(attempt, evaluated)
        with telemetry.span("inference.move_alias", attributes={"tunestream.model": evaluated.model}):
            version = Deployed(model=evaluated.model, job_id=job.job_id, at=self._now())
            try:
                # a cancel that comes from the move on is too late: the alias answers
                deployment = await self._aliases.promote(alias, version, job, attempt.point_of_no_return)
            except AliasTaken as taken:
                return _taken(job, evaluated.model, taken)
        if deployment.current.job_id == job.job_id:
            await attempt.certain()
            self._first_requests.deployed(evaluated.model, job.traceparent)
        return ModelDeployed(
            job_id=job.job_id,
            model=evaluated.model,
            alias=deployment.alias,
            previous=replaced_by(deployment, job.job_id),
            endpoint=f"{self._url}/v1",
        )

    async def _try_out(self, attempt: Attempt, evaluated: EvalCompleted) -> None:
        await self._adapters.fetch(evaluated.model)
        async with self._trial.serving():
            await attempt.certain()
            said = await self._trial.load_and_ask(evaluated.model, evaluated.served)
            await attempt.progress(message=said)


def _taken(job: Job, model: str, taken: AliasTaken) -> JobProgress:
    owner = taken.owner
    return JobProgress(
        job_id=job.job_id,
        stage="inference",
        state="not_promoted",
        message=f"The model passed, but the alias {taken.alias} belongs to another dataset, "
        f"{owner.dataset.bucket}/{owner.dataset.key} (job {owner.job_id}), and was left as it is. The model answers as "
        f"{model}. To move the alias to models of this dataset, name it in the job's settings: `alias: {taken.alias}`; "
        "or choose another alias there.",
        data={"model": model, "alias": taken.alias, "owner": owner.job_id},
    )

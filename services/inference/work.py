"""The last stage of a job: loads a model that passed the gate, and moves the alias to it. A model that did not pass, or
whose alias belongs to another dataset, can still be called by its id."""

from __future__ import annotations

from collections.abc import Callable

from services.inference.domain.deployments import AliasTaken, replaced_by
from services.inference.live_check import LiveCheck
from services.inference.registry.adapters import Adapters
from services.inference.registry.aliases import Aliases
from services.inference.registry.first_requests import FirstRequests
from services.inference.vllm.server import Vllm
from shared import telemetry
from shared.events import Deployed, EvalCompleted, Job, JobProgress, ModelDeployed
from shared.stages.stage import Attempt

PATIENCE = 120.0  # seconds to wait for vLLM in one attempt; a start takes 40 to 100


class DeployWork:
    """One attempt at deploying the model of a job."""

    def __init__(
        self,
        vllm: Vllm,
        adapters: Adapters,
        aliases: Aliases,
        first_requests: FirstRequests,
        live_check: LiveCheck,
        *,
        url: str,
        clock: Callable[[], float],
        patience: float = PATIENCE,
    ) -> None:
        """`url`: the address at which clients reach the endpoint, without `/v1`. `patience`: seconds to wait for
        vLLM."""
        self._vllm = vllm
        self._adapters = adapters
        self._aliases = aliases
        self._first_requests = first_requests
        self._live_check = live_check
        self._url = url.rstrip("/")
        self._clock = clock
        self._patience = patience

    async def __call__(self, attempt: Attempt) -> ModelDeployed | JobProgress:
        """Deploy the model, and return the event of the result: deployed, or not promoted and why.

        Raises:
            InputError: the adapter cannot be served here, or what is served is not what was trained.
            VllmUnavailable: vLLM is not up.
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
        # wait without a limit: another job may train for hours, and the number of attempts is limited
        with telemetry.span("inference.wait_for_vllm"):
            await self._vllm.wait_awake()
            await self._vllm.wait_ready(self._patience)
        async with self._vllm.using(self._patience), self._adapters.using(evaluated.model):
            with telemetry.span("inference.live_check"):
                said = await self._live_check(evaluated.model, evaluated.served)
            await attempt.progress(message=said)
            with telemetry.span("inference.move_alias", attributes={"tunestream.model": evaluated.model}):
                version = Deployed(model=evaluated.model, job_id=job.job_id, at=self._clock())
                try:
                    # as the user spells it: an alias of an older version may have upper-case letters
                    deployment = await self._aliases.promote(job.spec.alias or job.alias, version, job)
                except AliasTaken as taken:
                    return _taken(job, evaluated.model, taken)
        if deployment.current.job_id == job.job_id:
            self._first_requests.deployed(evaluated.model)
        return ModelDeployed(
            job_id=job.job_id,
            model=evaluated.model,
            alias=deployment.alias,
            previous=replaced_by(deployment, job.job_id),
            endpoint=f"{self._url}/v1",
        )


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

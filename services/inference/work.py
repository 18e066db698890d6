"""The last stage of a job: loads a model that passed the gate, and moves the alias to it. A model that did not pass, or
whose alias belongs to another dataset, can still be called by its id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from services.inference.domain.deployments import AliasTaken, replaced_by
from services.inference.errors import AdapterUnseen, VllmAsleep, VllmUnavailable
from services.inference.live_check import LiveCheck
from services.inference.registry.adapters import Adapters
from services.inference.registry.aliases import Aliases
from services.inference.registry.first_requests import FirstRequests
from services.inference.vllm.server import Vllm
from shared import telemetry
from shared.errors import ConfigError
from shared.events import Deployed, EvalCompleted, Job, JobProgress, ModelDeployed
from shared.stages.stage import Attempt
from shared.tasks import in_background

PATIENCE = 10.0
"""Seconds to wait for a vLLM that is not up. It is short, because meanwhile the attempt keeps later jobs from theirs;
the job comes again."""
ASLEEP = "a training has the GPU, and vLLM sleeps until it is over (TUNESTREAM_GPU__SHARE=alternate)"


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
        now: Callable[[], float],
        patience: float = PATIENCE,
    ) -> None:
        """`url`: the address at which clients reach the endpoint, without `/v1`. `now`: seconds since the
        epoch by the store's clock. `patience`: seconds to wait for vLLM."""
        self._vllm = vllm
        self._adapters = adapters
        self._aliases = aliases
        self._first_requests = first_requests
        self._live_check = live_check
        self._url = url.rstrip("/")
        self._now = now
        self._patience = patience

    async def __call__(self, attempt: Attempt) -> ModelDeployed | JobProgress:
        """Deploy the model, and return the event of the result: deployed, or not promoted and why.

        Raises:
            InputError: the adapter cannot be served here, or what is served is not what was trained.
            VllmUnavailable: vLLM is not up, or asleep.
            TransientError: the object store is away, or a disk is full.
            ConfigError: vLLM does not see the folder of the adapters.
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
        await self._adapters.fetch(evaluated.model)
        async with self._serving():
            await attempt.certain()
            said = await self._loaded(evaluated)
            await attempt.progress(message=said)
        with telemetry.span("inference.move_alias", attributes={"tunestream.model": evaluated.model}):
            version = Deployed(model=evaluated.model, job_id=job.job_id, at=self._now())
            # as the user spells it: an alias of an older version may have upper-case letters
            alias = job.spec.alias or job.alias
            try:
                deployment = await self._aliases.promote(alias, version, job, attempt.certain)
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

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        """vLLM is up and stays awake while the block runs. Its errors are told in the words of an operator."""
        try:
            with telemetry.span("inference.wait_for_vllm"):
                await self._vllm.wait_ready(self._patience)
            async with self._vllm.using(self._patience):
                yield
        except VllmAsleep:
            raise VllmAsleep(ASLEEP) from None
        except VllmUnavailable as error:
            raise VllmUnavailable(self._vllm.trouble) from error
        except AdapterUnseen as error:
            raise ConfigError(
                f"{self._vllm.named} does not see the adapters that this service downloads: TUNESTREAM_INFERENCE__"
                "ADAPTER_DIR must be one folder for both"
            ) from error

    async def _loaded(self, evaluated: EvalCompleted) -> str:
        """Load the adapter and ask the live server about it; what came out. A server that hangs is not waited for."""

        async def load_and_ask() -> str:
            async with self._adapters.using(evaluated.model):
                with telemetry.span("inference.live_check"):
                    return await self._live_check(evaluated.model, evaluated.served)

        async with in_background(load_and_ask()) as asking, in_background(self._vllm.silent(self._patience)) as silence:
            await asyncio.wait({asking, silence}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise VllmUnavailable("The model server hangs")
            return await asking


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

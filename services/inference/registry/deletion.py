"""Deletes tuned models: a tombstone says that a model does not exist any more, and the janitor deletes its bytes."""

from __future__ import annotations

import contextlib
import logging

from pydantic import ValidationError

from services.inference.registry.adapters import Adapters
from services.inference.registry.aliases import Aliases
from services.inference.registry.models import Bases
from services.inference.registry.trained import Trained, TrainedModels
from services.inference.registry.watched import DeletedModels
from shared.access.tuned_models import DELETED_MODELS
from shared.errors import AlreadyExists
from shared.events import Tombstone
from shared.http.errors import ApiError
from shared.stages import outbox
from shared.stages.ledger import Ledger, attempt_prefix, tombstone_key

log = logging.getLogger(__name__)

FINAL = {"x-should-retry": "false"}


class Deletion:
    """Deletes one model."""

    def __init__(
        self,
        ledger: Ledger,
        trained: TrainedModels,
        deleted: DeletedModels,
        aliases: Aliases,
        adapters: Adapters,
        bases: Bases,
    ) -> None:
        self._ledger = ledger
        self._trained = trained
        self._deleted = deleted
        self._aliases = aliases
        self._adapters = adapters
        self._bases = bases

    async def __call__(self, name: str, project: str, *, repeated: bool = False) -> None:
        """Delete the tuned model `name` of `project`, or a checkpoint. From now on it does not exist. `repeated`: the
        client has asked before, and its answer may have been lost.

        Raises:
            ApiError: 400 or 403, it may not be deleted.
            InputError: `model_not_found`.
            StoreUnavailable: it may not be deleted yet.
        """
        if name in self._bases:
            raise ApiError(
                403,
                f"The model {name} is a base, which nobody can delete: only tuned models can be deleted.",
                code="insufficient_permissions",
                param="model",
            )
        trained = await self._trained.find_even_if_deleted(name)
        if trained is not None and trained.project != project:
            await self._trained.miss(name)
            trained = None
        if trained is None:
            if await self._aliases.get(name, project) is not None:
                message = (
                    f"`{name}` is an alias: name the id of a tuned model, such as `ft:…`. GET /v1/models lists them."
                )
                raise ApiError(400, message, code="not_a_tuned_model", param="model", headers=FINAL)
            raise self._bases.not_found(name)
        if await self._deleted.has(trained.key_name):
            if repeated:
                return
            raise self._bases.not_found(name)
        await self._refuse_if_needed(trained, project)
        await self._bury(trained)

    async def _refuse_if_needed(self, trained: Trained, project: str) -> None:
        names = [
            deployment.alias
            for deployment in await self._aliases.all()
            if deployment.project == project and deployment.current.model == trained.model
        ]
        if names:
            raise ApiError(
                400,
                f"The model {trained.model} is deployed under the alias `{names[0]}`. Point that at another model "
                f"first (POST /deployments/{names[0]}), or roll it back.",
                code="model_deployed",
                param="model",
                headers=FINAL,
            )
        if trained.step is None and not await self._ended(trained.job_id):
            raise ApiError(
                400,
                f"The job {trained.job_id} of this model is under way, and still needs it. Wait for its end, or cancel "
                "it, and try again.",
                code="job_under_way",
                param="model",
                headers=FINAL,
            )

    async def _ended(self, job_id: str) -> bool:
        try:
            if await outbox.read(self._ledger, job_id, "inference") is not None:
                return True
            evaluated = await outbox.read(self._ledger, job_id, "evaluator")
        except ValidationError:  # of another version, but a result
            return True
        return evaluated is not None and evaluated.outcome != "completed"

    async def _bury(self, trained: Trained) -> None:
        prefix = f"{trained.adapter.prefix.rstrip('/')}/"
        if await self._trained.is_shared(trained):  # its bytes go with the last model that has them
            own = "adapter" if trained.step is None else f"checkpoints/step-{trained.step}"
            prefix = f"{attempt_prefix(trained.job_id, 'trainer', 0)}{own}/"
        stone = Tombstone(prefix=prefix, reason="its user has deleted the model", at=self._ledger.now())
        with contextlib.suppress(AlreadyExists):  # somebody else has deleted it at the same moment
            await self._ledger.create(tombstone_key(DELETED_MODELS, trained.key_name), stone.model_dump_json().encode())
        self._deleted.learn(trained.key_name)
        self._adapters.discard(trained.model)
        log.info("a model was deleted", extra={"model": trained.model, "job_id": trained.job_id})

"""Makes sweeps, and asks for their end."""

from __future__ import annotations

import hashlib

from services.api.domain.repeats import REPEATED_SECONDS
from services.api.domain.sweeps.documents import (
    Cancelled,
    Documents,
    Sweep,
    cancel_key,
    sweep_id_of,
    sweep_key,
)
from services.api.resources.dependencies import Dependencies
from services.api.resources.fine_tuning.files import file_for
from services.api.resources.sweeps.domain import CreateSweep
from services.api.sweeps import search
from services.api.sweeps.store import SweepStore
from shared.access.principal import Principal
from shared.errors import InputError
from shared.events import DatasetPointer
from shared.graders.embedded import check_graders
from shared.http.errors import ApiError
from shared.jobs import models


async def create_sweep(
    dependencies: Dependencies,
    store: SweepStore,
    body: CreateSweep,
    principal: Principal,
    *,
    most: int | None,
    sent: bytes,
    idempotency_key: str | None,
    repeated: bool,
    traceparent: str,
) -> Documents:
    """Make a sweep, or find the one that this request has made. When this returns, it is durable.

    `most`: how many jobs the project may have under way by the limits of the key. `sent`: the bytes of the body.
    `idempotency_key`: requests with the same one are one sweep. `repeated`: it is not the client's first try.

    Raises:
        InputError: a file, the model, a setting or the space is wrong.
        ApiError: this service cannot search, or the idempotency key belongs to another request.
        TransientError: the request may not have been written.
    """
    if not search.is_installed():
        message = "This deployment cannot search: its api service lacks Optuna (the extra `search`)."
        raise ApiError(400, message, code="not_installed", headers={"x-should-retry": "false"})
    objects, project = dependencies.objects, principal.project
    check_graders(body.spec.evaluation, dependencies.embeddings, "spec.evaluation")
    if most is not None and body.parallel > most:
        message = f"This key allows {most} jobs under way at a time; lower 'parallel' to that."
        raise InputError("invalid_value", message, "parallel")
    training = await file_for(objects, body.training_file, project, "training_file")
    wanted = body.validation_file
    validation = await file_for(objects, wanted, project, "validation_file") if wanted else None
    found = await models.resolve(objects, dependencies.model, body.spec.model, project)
    space = body.searched(dependencies.largest_rank, tuned=found.start_from is not None)
    pointer = DatasetPointer.model_validate(validation.content.model_dump()) if validation else None
    request = hashlib.sha256(sent).hexdigest()

    def sweep(sweep_id: str) -> Sweep:
        return Sweep(
            sweep_id=sweep_id,
            created_at=objects.now(),
            project=project,
            key_id=principal.key_id,
            request=request,
            dataset=training.content,
            filename=training.filename,
            validation_file=validation.content if validation else None,
            base=found.base,
            start_from=found.start_from,
            organization=dependencies.model.organization,
            spec=body.spec.model_copy(update={"validation_file": pointer}),
            space=space,
            trials=body.trials,
            parallel=body.parallel,
            pruning=body.pruning,
            seed=body.seed,
            budget=body.budget,
            max_open_jobs=most,
            traceparent=traceparent,
            notes=found.notes,
        )

    if idempotency_key:
        sweep_id = sweep_id_of(project, "key", idempotency_key)
        made = await store.create(sweep_key(sweep_id), sweep(sweep_id))
        documents = await _there(store, sweep_id)
        if not made and documents.sweep.request != request:
            message = "This Idempotency-Key belongs to another request; send a new key with a new request."
            raise ApiError(400, message, code="idempotency_key_reused", headers={"x-should-retry": "false"})
        return documents
    number = 0
    newest: Documents | None = None
    while True:
        sweep_id = sweep_id_of(project, "request", principal.key_id, request, number)
        if known := await store.find(sweep_id):
            newest, number = known, number + 1
            continue
        if repeated and newest and newest.sweep.created_at > objects.now() - REPEATED_SECONDS:
            return newest
        if await store.create(sweep_key(sweep_id), sweep(sweep_id)):
            return await _there(store, sweep_id)


async def _there(store: SweepStore, sweep_id: str) -> Documents:
    documents = await store.find(sweep_id)
    if documents is None:
        raise ApiError(502, f"The documents of {sweep_id} cannot be read.", code="object_refused")
    return documents


async def cancel_sweep(dependencies: Dependencies, store: SweepStore, documents: Documents) -> Documents:
    """Ask for the end of a sweep. Its trials are cancelled within seconds; what they have trained stays.

    Raises:
        ApiError: it has ended.
        TransientError: the request may not have been written.
    """
    sweep_id = documents.sweep.sweep_id
    if documents.result is not None:
        if documents.result.outcome == "cancelled":
            return documents
        message = f"Sweep {sweep_id} has already ended ({documents.result.outcome}); there is nothing to cancel."
        headers = {"x-should-retry": "false"}
        raise ApiError(400, message, param="sweep_id", code="sweep_finished", headers=headers)
    await store.create(cancel_key(sweep_id), Cancelled(at=dependencies.objects.now()))
    return await _there(store, sweep_id)

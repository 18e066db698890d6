"""The files that a job names, from the Files API."""

from __future__ import annotations

from pydantic import ValidationError

from services.api.resources.dependencies import Dependencies
from services.api.resources.fine_tuning.domain.job import job_of_result_file, result_of
from shared.errors import InputError
from shared.events import Reference, StoredFile
from shared.ids import is_file_id, is_job_id
from shared.stages.ledger import file_meta_key, tombstone_key
from shared.store.objects import ObjectStore

PURPOSE = "fine-tune"


async def stored_file(objects: ObjectStore, file_id: str, project: str) -> StoredFile | None:
    """A file of the project; None: it has no such file, or it is deleted or has expired.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    if not is_file_id(file_id) or (found := await objects.get(file_meta_key(file_id))) is None:
        return None
    try:
        file = StoredFile.model_validate_json(found[0])
    except ValidationError:  # another version wrote it
        return None
    if file.file_id != file_id or file.project != project:
        return None
    if file.expires_at is not None and file.expires_at <= objects.now():
        return None
    return None if await objects.exists(tombstone_key("files", file_id)) else file


async def file_for(objects: ObjectStore, file_id: str, project: str, param: str) -> StoredFile:
    """The file that the field `param` of a request names.

    Raises:
        InputError: `invalid_training_file` or `invalid_validation_file`.
        StoreUnavailable: the store does not answer.
    """
    file = await stored_file(objects, file_id, project)
    if file is None:
        message = f"invalid {param}: the project has no file '{file_id[:100]}'; upload it with the purpose '{PURPOSE}'."
        raise InputError(f"invalid_{param}", message, param)
    if file.purpose != PURPOSE:
        message = (
            f"invalid {param}: '{file_id}' has the purpose '{file.purpose[:100]}'; upload the file again with the "
            f"purpose '{PURPOSE}'."
        )
        raise InputError(f"invalid_{param}", message, param)
    return file


async def result_file(dependencies: Dependencies, file_id: str, project: str) -> StoredFile | None:
    """The result file of a job, as the Files API shows files; None: there is none of this id in the project.

    Raises:
        TransientError: the store or the database does not answer.
    """
    job_id = job_of_result_file(file_id)
    state = await dependencies.projection.look_up(job_id) if job_id and is_job_id(job_id) else None
    content: Reference | None = result_of(state) if state and state.project == project else None
    outcome = state.stage("trainer").outcome if state else None
    if content is None or outcome is None:
        return None
    return StoredFile(
        file_id=file_id,
        project=project,
        filename="step_metrics.csv",
        purpose="fine-tune-results",
        created_at=outcome.at,
        content=content,
    )

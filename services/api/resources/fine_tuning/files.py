"""The files that a job names, from the Files API."""

from __future__ import annotations

from services.api.resources.files.store import find_stored
from shared.errors import InputError
from shared.events import StoredFile
from shared.store.objects import ObjectStore

PURPOSE = "fine-tune"


async def file_for(objects: ObjectStore, file_id: str, project: str, param: str) -> StoredFile:
    """The file that the field `param` of a request names.

    Raises:
        InputError: `invalid_training_file` or `invalid_validation_file`.
        StoreUnavailable: the store does not answer.
    """
    file = await find_stored(objects, file_id, project)
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

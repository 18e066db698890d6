"""The files of the Files API: their ids, what may be stored, and their JSON objects."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from typing import Any

from services.api.domain.state import JobState
from services.api.resources.lists import whole_seconds
from shared import ids
from shared.errors import InputError
from shared.events import StoredFile, TrainingCompleted
from shared.events.limits import NAME_CHARS
from shared.files.signatures import WORDS, Sort, sort_of

RESULT_PREFIX = "file-result-"
RESULTS = "results.csv"
RESULT_PURPOSE = "fine-tune-results"
PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
SHORTEST_SECONDS, LONGEST_SECONDS = 3600, 2_592_000
"""Of `expires_after.seconds`: an hour and thirty days."""
HEAD_BYTES = 8192

_BOM = codecs.BOM_UTF8
_ARCHIVES: tuple[Sort, ...] = ("gzip", "zip", "zstd", "bzip2", "xz")


def result_file_id(job_id: str) -> str:
    """The id of the result file of a job. It leads to the job, so a job has one as soon as it is trained, and nothing
    needs to be written."""
    return RESULT_PREFIX + job_id.removeprefix("ftjob-")


def job_of(file_id: str) -> str | None:
    """The job whose result file this is; None: it is no result file."""
    return f"ftjob-{file_id.removeprefix(RESULT_PREFIX)}" if file_id.startswith(RESULT_PREFIX) else None


def result_file(state: JobState) -> StoredFile | None:
    """The result file of a job; None: it is not trained yet, or left no such file."""
    trained, outcome = state.event_of(TrainingCompleted), state.stage("trainer").outcome
    if trained is None or outcome is None or state.manifest is None or not state.completed("trainer"):
        return None
    content = trained.artifacts.get(RESULTS)
    if content is None:
        return None
    return StoredFile(
        file_id=result_file_id(state.job_id),
        project=state.manifest.project,
        filename=f"{state.job_id}-{RESULTS}",
        purpose=RESULT_PURPOSE,
        created_at=outcome.at,
        content=content,
    )


def file_view(file: StoredFile) -> dict[str, Any]:
    """The JSON object of a file, as OpenAI's API has it."""
    return shown(file.file_id, file.content.size, file.created_at, file.expires_at, file.filename, file.purpose)


def shown(
    file_id: str, size: int, created_at: float, expires_at: float | None, filename: str, purpose: str
) -> dict[str, Any]:
    """The same of the fields of a file."""
    return {
        "id": file_id,
        "object": "file",
        "bytes": size,
        "created_at": whole_seconds(created_at),
        "expires_at": None if expires_at is None else whole_seconds(expires_at),
        "filename": filename,
        "purpose": purpose,
        "status": "processed",
        "status_details": None,
    }


def is_expired(file: StoredFile, now: float) -> bool:
    return file.expires_at is not None and file.expires_at <= now


# --- what may be stored -------------------------------------------------------------------------------------------


def check_purpose(purpose: str | None) -> str:
    """The purpose of a new file.

    Raises:
        InputError: no file can be stored for it.
    """
    if not purpose:
        raise InputError("missing_purpose", "Missing required parameter: 'purpose'.", "purpose")
    if purpose not in PURPOSES:
        raise InputError("invalid_purpose", f"{purpose[:100]!r} is not one of {list(PURPOSES)} - 'purpose'", "purpose")
    return purpose


def check_name(filename: str) -> str:
    """The name of a new file.

    Raises:
        InputError: it is too long.
    """
    if len(filename) > NAME_CHARS:
        message = f"The name of the file has {len(filename):,} characters; give it at most {NAME_CHARS:,}."
        raise InputError("invalid_filename", message, "file")
    return filename


def lifetime(expires_after: Mapping[str, Any] | None) -> int | None:
    """For how many seconds a file is wanted; None: until it is deleted.

    Raises:
        InputError: `expires_after` is not as it should be; the message names the field.
    """
    if expires_after is None:
        return None
    if (anchor := expires_after.get("anchor")) != "created_at":
        message = f"{str(anchor)[:100]!r} is no anchor; give 'created_at', the only one there is."
        raise InputError("invalid_expires_after", message, "expires_after.anchor")
    given = str(expires_after.get("seconds"))
    seconds = int(given) if given.isascii() and given.isdigit() and len(given) < 10 else 0
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        message = f"'expires_after.seconds' must be a whole number from {SHORTEST_SECONDS} to {LONGEST_SECONDS}."
        raise InputError("invalid_expires_after", message, "expires_after.seconds")
    return seconds


def check_content(head: bytes, size: int, purpose: str) -> None:
    """Look at the beginning of a file, whatever its name: the official client names bytes `upload`. What is wrong with
    single lines is found, with their numbers, when a job validates the file.

    Raises:
        InputError: it cannot be what its purpose says.
    """
    if size == 0:
        raise InputError("empty_file", "File is empty. Send a file with content.", "file")
    if purpose != "fine-tune":
        return
    sort = sort_of(head)
    if sort in _ARCHIVES:
        raise _not_jsonl(f"The file is {WORDS[sort]}; unpack it first.")
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head.removeprefix(_BOM))
    except UnicodeDecodeError as error:
        raise _not_jsonl(f"Byte {error.start + 1} is no UTF-8 text; save the file as UTF-8.") from None
    if "\0" in text:
        raise _not_jsonl("The file is binary.")
    if size <= len(head) and not text.strip():
        raise InputError("empty_file", "File is empty. Send a file with content.", "file")
    first = text.lstrip()
    if first and not first.startswith("{"):
        raise _not_jsonl("Its first line does not begin with '{'.")


def _not_jsonl(reason: str) -> InputError:
    return InputError(
        "invalid_file_format",
        f"Invalid file format. For the purpose 'fine-tune' a file must be JSONL: one JSON object per line. {reason}",
        "file",
    )


def file_id_of(*parts: Any) -> str:
    """The id of a file that is derived from `parts`."""
    return f"file-{ids.derive('file', *parts)}"

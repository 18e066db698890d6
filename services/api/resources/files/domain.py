"""The files of the Files API: their ids, and their JSON objects."""

from __future__ import annotations

RESULT_PREFIX = "file-result-"


def result_file_id(job_id: str) -> str:
    """The id of the result file of a job. It leads to the job, so a job has one as soon as it is trained, and nothing
    needs to be written."""
    return RESULT_PREFIX + job_id.removeprefix("ftjob-")


def job_of(file_id: str) -> str | None:
    """The job whose result file this is; None: it is no result file."""
    return f"ftjob-{file_id.removeprefix(RESULT_PREFIX)}" if file_id.startswith(RESULT_PREFIX) else None

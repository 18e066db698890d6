"""The artifacts of a job that clients may read, and their names in the API."""

from __future__ import annotations

from services.api.domain.state import JobState
from shared.events import DatasetValidated, EvalCompleted, Reference, TrainingCompleted
from shared.stages.ledger import attempt_prefix

VALIDATION_REPORT = "validation-report.json"
VALIDATION_PAGE = "validation-report.html"
MINING_REPORT, MINED = "mining-report.json", "mined.jsonl"
"""What ingest made of a dataset in no training format, and what it left out."""
OTHER_TYPE = "application/octet-stream"
MEDIA_TYPES = {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".csv": "text/csv; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".png": "image/png",
}


def references(state: JobState) -> dict[str, Reference]:
    """The files of the completed stages, by name."""
    found: dict[str, Reference] = {}
    if state.manifest and (prepared := state.manifest.prepared):
        found[MINING_REPORT] = prepared.report
        found |= {MINED: prepared.dataset} if prepared.dataset else {}
    if validated := state.event_of(DatasetValidated):
        found[VALIDATION_REPORT] = validated.report
        if validated.page:
            found[VALIDATION_PAGE] = validated.page
    if trained := state.event_of(TrainingCompleted):
        found |= trained.artifacts
    if evaluated := state.event_of(EvalCompleted):
        found |= {"report.json": evaluated.report, "report.html": evaluated.html}
    return found


def failed_report_keys(state: JobState) -> dict[str, str]:
    """The keys of the report on a dataset that validation refused, to which no event refers, by name. Empty if it did
    not refuse."""
    outcome = state.stage("validate").outcome
    if outcome is None or outcome.ending != "failed" or outcome.attempt is None:
        return {}
    prefix = attempt_prefix(state.job_id, "validate", outcome.attempt)
    return {VALIDATION_REPORT: f"{prefix}report.json", VALIDATION_PAGE: f"{prefix}report.html"}


def names_of(state: JobState) -> list[str]:
    return sorted({*references(state), *failed_report_keys(state)})


def media_type(name: str) -> str:
    suffix = name[name.rfind(".") :] if "." in name else ""
    return MEDIA_TYPES.get(suffix, OTHER_TYPE)

"""What an older version has kept in the database is still read."""

from __future__ import annotations

import functools
import json

from services.api.domain.projection import Manifest, Occurred, project
from services.api.domain.state import JobState
from services.api.resources.artifacts.domain import VALIDATION_REPORT, failed_report_keys
from tests.support.data.job_history import T0, JobHistory

HISTORY = JobHistory()


def test_an_attempt_that_was_kept_as_epoch_still_leads_to_its_validation_report() -> None:
    failed = Occurred(HISTORY.failed("validate"), "ftevent-f", T0 + 9, committed=True, attempt=2)
    state = functools.reduce(project, [Manifest(HISTORY.job), failed], JobState(job_id=HISTORY.job_id))
    kept = state.model_dump_json(exclude_defaults=True)
    assert json.loads(kept)["stages"]["validate"]["outcome"]["attempt"] == 2

    old = JobState.model_validate_json(kept.replace('"attempt":2', '"epoch":2'))

    assert old == state
    assert failed_report_keys(old)[VALIDATION_REPORT] == f"jobs/{HISTORY.job_id}/validate/attempt-2/report.json"

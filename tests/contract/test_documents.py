"""Documents at rest: this version reads what older versions have written to the ledger."""

from __future__ import annotations

import json

from shared.events import Claim, EventRecord, JobFailed, StageResult


def test_a_document_that_calls_the_attempt_an_epoch_is_still_read() -> None:
    claim = Claim.model_validate_json(b'{"owner": "host/1", "epoch": 3, "expires": 10.0}')
    assert claim.attempt == 3
    assert json.loads(claim.model_dump_json())["attempt"] == 3

    event = EventRecord.of(JobFailed(job_id="ftjob-a", stage="trainer", code="c", message="m"), "ftevent-a")
    written = StageResult(
        job_id="ftjob-a", stage="trainer", attempt=2, owner="host/1", outcome="failed", event=event, finished_at=1.0
    ).model_dump(mode="json")
    old = {("epoch" if name == "attempt" else name): value for name, value in written.items()}
    assert StageResult.model_validate(old).model_dump(mode="json") == written

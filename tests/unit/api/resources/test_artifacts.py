"""/jobs/{id}/files and /jobs/{id}/report, the artifacts of a job, as a client sees them."""

from __future__ import annotations

import pytest

from shared.events import Prepared
from tests.support.data.job_history import JobHistory
from tests.unit.api.conftest import URL, Api, error_of


async def test_the_report_and_the_files_come_from_the_ledger(api: Api, history: JobHistory) -> None:
    report = await api.client.get(f"/jobs/{history.job_id}/report")
    assert (report.status_code, report.text) == (200, "report.html of evaluator")
    assert report.headers["content-type"] == "text/html; charset=utf-8"
    assert "sandbox" in report.headers["content-security-policy"]
    assert report.headers["content-length"] == str(len(report.content))
    job = await api.get(f"/jobs/{history.job_id}")
    texts = {name: (await api.client.get(f"/jobs/{history.job_id}/files/{name}")).text for name in job["files"]}
    assert texts == {
        "curves.png": "curves.png of trainer",
        "report.html": "report.html of evaluator",
        "results.csv": "results.csv of trainer",
        "report.json": "report.json of evaluator",
        "validation-report.json": "report.json of validate",
        "validation-report.html": "report.html of validate",
    }
    assert job["evaluation"]["html"] == f"{URL}/jobs/{history.job_id}/report"


async def test_a_job_that_failed_in_validation_still_shows_its_report(api: Api) -> None:
    bad = JobHistory(3)
    await bad.write_documents(api.objects, until="ingest")
    await api.objects.put(f"jobs/{bad.job_id}/validate/attempt-1/report.json", b'{"problems": []}')
    await api.objects.put(f"jobs/{bad.job_id}/validate/attempt-1/report.html", b"<p>a page")
    await bad.finish(api.objects, "validate", bad.failed("validate", "invalid_training_file"), 2.0, "failed")
    job = await api.get(f"/jobs/{bad.job_id}")
    assert job["files"] == ["validation-report.html", "validation-report.json"]
    page = await api.client.get(f"/jobs/{bad.job_id}/files/validation-report.html")
    assert page.text == "<p>a page" and "sandbox" in page.headers["content-security-policy"]
    assert (await api.get(f"/jobs/{bad.job_id}/files/validation-report.json")) == {"problems": []}


async def test_what_ingest_made_of_a_table_can_be_read(api: Api) -> None:
    mined = JobHistory(4)
    prefix = f"jobs/{mined.job_id}/ingest/attempt-1/"
    prepared = Prepared(
        dataset=await api.objects.put(f"{prefix}dataset-1.jsonl", b"rows"),
        report=await api.objects.put(f"{prefix}mining.json", b"{}"),
    )
    mined.job = mined.job.model_copy(update={"prepared": prepared, "notes": ("2 have no answer (line 3, 4)",)})
    await mined.write_documents(api.objects, until="ingest")
    job = await api.get(f"/jobs/{mined.job_id}")
    assert job["files"] == ["mined.jsonl", "mining-report.json"]
    assert (await api.client.get(f"/jobs/{mined.job_id}/files/mined.jsonl")).text == "rows"
    events = (await api.get(f"/jobs/{mined.job_id}/events"))["data"]
    assert "2 have no answer (line 3, 4)" in [event["message"] for event in events]


@pytest.mark.parametrize("path", ["report", "files/curves.png", "files/..%2f..%2fjob.json"])
async def test_a_file_that_is_not_there_yet(api: Api, training_job: JobHistory, path: str) -> None:
    answer = await api.client.get(f"/jobs/{training_job.job_id}/{path}")
    assert answer.status_code == 404
    error_of(answer)


async def test_a_file_that_was_overwritten_is_not_passed_on(api: Api, history: JobHistory) -> None:
    await api.objects.put(f"jobs/{history.job_id}/evaluator/attempt-1/report.html", b"something else")
    answer = await api.client.get(f"/jobs/{history.job_id}/report")
    assert (answer.status_code, error_of(answer)["code"]) == (502, "corrupt_object")

"""Submitting a dataset: what is uploaded, in which order, and the id that is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli.jobs.submit import check_file, dataset_key, submit
from cli.terminal import CliError
from services.ingest.domain.datasets import is_dataset
from services.ingest.job_settings import parse_spec
from shared.errors import InputError
from shared.events import DatasetPointer, JobSpec, Origin
from shared.jobs.manifest import job_of
from tests.support.fakes.store import FakeStore

SUPPORT = JobSpec(suffix="support")
WRITES = ("delete", "put", "upload")


@pytest.fixture
def datasets() -> FakeStore:
    return FakeStore("datasets")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "support.jsonl"
    file.write_text('{"messages": []}\n')
    return file


async def ids_of_ingest(datasets: FakeStore) -> dict[str, str]:
    """The ids of the jobs that ingest makes of the objects in the bucket, by key."""
    found = {}
    for entry in await datasets.list(""):
        if is_dataset(entry.key):
            sidecar = await datasets.get(entry.key.removesuffix(".jsonl") + ".job.yaml")
            job = job_of(
                await datasets.describe(DatasetPointer(bucket="datasets", key=entry.key)),
                parse_spec(sidecar[0] if sidecar else b"", "sidecar"),
                validation_file=None,
                base="base",
                organization="org",
                origin=Origin(),
                traceparent="",
                now=0,
            )
            found[entry.key] = job.job_id
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {"suffix": "support"},
        {"suffix": "Grüße", "hyperparameters": {"n_epochs": 3, "learning_rate": 3e-3}, "lora": {"r": 8}, "rerun": 1},
        {"hyperparameters": {"n_epochs": "auto"}, "metadata": {"team": "b", "owner": "a"}},
    ],
)
async def test_the_printed_id_is_the_one_that_ingest_derives(
    datasets: FakeStore, rows: Path, settings: dict[str, Any]
) -> None:
    job, _ = await submit(datasets, rows, "support.jsonl", JobSpec.model_validate(settings))
    assert job.startswith("ftjob-")
    assert await ids_of_ingest(datasets) == {"support.jsonl": job}


async def test_settings_are_there_before_the_dataset(datasets: FakeStore, rows: Path) -> None:
    await submit(datasets, rows, "team/support.jsonl", SUPPORT)
    written = [key for name, key in datasets.calls if name in WRITES]
    assert written == ["team/support.job.yaml", "team/support.jsonl"]


async def test_without_settings_there_is_no_sidecar(datasets: FakeStore, rows: Path) -> None:
    job, _ = await submit(datasets, rows, "support.jsonl", JobSpec())
    assert [entry.key for entry in await datasets.list("")] == ["support.jsonl"]
    assert await ids_of_ingest(datasets) == {"support.jsonl": job}


async def test_the_settings_of_an_earlier_submission_do_not_count(datasets: FakeStore, rows: Path) -> None:
    await submit(datasets, rows, "support.jsonl", SUPPORT)
    job, _ = await submit(datasets, rows, "support.jsonl", JobSpec())
    assert await ids_of_ingest(datasets) == {"support.jsonl": job}


async def test_a_dataset_never_lies_beside_the_settings_of_another(datasets: FakeStore, rows: Path) -> None:
    """A sweep between two writes must not find the old dataset with the new settings, or the new dataset with the old
    ones."""
    await submit(datasets, rows, "support.jsonl", SUPPORT)
    rows.write_text('{"messages": [1]}\n')
    datasets.calls.clear()
    await submit(datasets, rows, "support.jsonl", JobSpec(suffix="other"))
    changes = [("delete" if name == "delete" else "write", key) for name, key in datasets.calls if name in WRITES]
    assert changes == [
        ("delete", "support.jsonl"),
        ("write", "support.job.yaml"),
        ("write", "support.jsonl"),
    ]


async def test_submitting_the_same_again_writes_nothing(datasets: FakeStore, rows: Path) -> None:
    first, _ = await submit(datasets, rows, "support.jsonl", SUPPORT)
    datasets.calls.clear()
    assert (await submit(datasets, rows, "support.jsonl", SUPPORT))[0] == first
    assert not [call for call in datasets.calls if call[0] in WRITES]


async def test_a_rerun_is_another_job_of_the_same_bytes(datasets: FakeStore, rows: Path) -> None:
    first, _ = await submit(datasets, rows, "support.jsonl", SUPPORT)
    second, _ = await submit(datasets, rows, "support.jsonl", JobSpec(suffix="support", rerun=1))
    assert first != second
    assert await ids_of_ingest(datasets) == {"support.jsonl": second}


async def test_a_validation_file_is_referred_to_and_is_no_dataset(
    datasets: FakeStore, rows: Path, tmp_path: Path
) -> None:
    validation = tmp_path / "held-out.jsonl"
    validation.write_text("{}\n")
    job, spec = await submit(datasets, rows, "team/support.jsonl", SUPPORT, validation)
    assert spec.validation_file is not None
    assert await datasets.read(await datasets.describe(spec.validation_file)) == b"{}\n"
    assert await ids_of_ingest(datasets) == {"team/support.jsonl": job}


@pytest.mark.parametrize("name", ["rows.txt", "_rows.jsonl", ".rows.jsonl", "rows.jsonl.part", "/rows.jsonl", "rows"])
def test_a_name_that_ingest_would_ignore_is_refused(name: str) -> None:
    with pytest.raises(CliError, match=r"only names that end with \.jsonl"):
        dataset_key(Path("whatever"), name)


def test_a_file_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="there is no file"):
        check_file(tmp_path / "missing.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(CliError, match="is empty"):
        check_file(tmp_path / "empty.jsonl")


async def test_a_dataset_that_is_deleted_during_the_check_is_uploaded(
    datasets: FakeStore, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await datasets.upload("support.jsonl", rows)

    async def gone(pointer: DatasetPointer) -> None:
        await datasets.delete(pointer.key)
        raise InputError("file_not_found", "gone")

    monkeypatch.setattr(datasets, "describe", gone)
    await submit(datasets, rows, "support.jsonl", SUPPORT)
    assert await datasets.exists("support.jsonl")

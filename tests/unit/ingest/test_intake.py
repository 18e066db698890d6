"""Makes the job of a dataset: what happens if it is made again, and where the trace of the job begins."""

from __future__ import annotations

import pytest

from services.ingest.announcer import Announcer
from services.ingest.intake import Intake
from shared.events import (
    DatasetPointer,
    DatasetUploaded,
    FolderReference,
    Job,
    JobFailed,
    Origin,
    Overfitting,
    TrainingCompleted,
)
from shared.settings import ModelSettings, Settings
from shared.stages import outbox
from shared.stages.ledger import job_key
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.store import FakeStore
from tests.support.spans import Spans, trace_of, traceparent_of

STRANGER = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"
POINTER = DatasetPointer(bucket="datasets", key="canary-file.jsonl")


class Ingest:
    def __init__(self) -> None:
        self.objects, self.bus = FakeStore(), FakeBus()
        model = ModelSettings(id="acme/tiny", allowed=("acme/other",), aliases={"gpt-4o": "acme/tiny"})
        settings = Settings(_env_file=None, model=model)
        self.intake = Intake(self.objects, Announcer(self.objects, self.bus), settings)

    async def take(self, traceparent: str | None = None) -> Job:
        return (await self.intake.create_job(POINTER, origin=Origin(kind="drop"), traceparent=traceparent)).job


@pytest.fixture
async def ingest() -> Ingest:
    ingest = Ingest()
    await ingest.objects.at("datasets").put(POINTER.key, b'{"messages": []}\n')
    return ingest


async def test_a_drop_begins_a_trace_whose_root_is_in_the_manifest(ingest: Ingest, spans: Spans) -> None:
    job = await ingest.take()

    root = spans.one("job")
    assert root.parent is None
    assert job.traceparent == traceparent_of(root)
    assert spans.below(root) == ["ingest", "publish dataset.uploaded"]
    assert [published.traceparent for published in ingest.bus.published] == [job.traceparent]
    kept = await ingest.objects.get(job_key(job.job_id))
    assert kept is not None and Job.model_validate_json(kept[0]) == job


async def test_the_job_of_an_event_with_a_traceparent_belongs_to_that_trace(ingest: Ingest, spans: Spans) -> None:
    job = await ingest.take(STRANGER)

    assert spans.below(STRANGER) == ["job"]
    assert {trace_of(span) for span in spans.all} == {"c" * 32}
    assert job.traceparent == traceparent_of(spans.one("job"))


async def test_an_event_cannot_make_a_job_that_begins_from_a_later_stage(ingest: Ingest) -> None:
    forged = Origin(kind="event", source="/elsewhere", parent_job="ftjob-another", from_stage="inference")
    job = (await ingest.intake.create_job(POINTER, origin=forged)).job
    assert job.adopts == ()
    assert job.origin == Origin(kind="event", source="/elsewhere", parent_job="ftjob-another")


async def test_an_event_cannot_make_a_job_that_is_not_evaluated(ingest: Ingest) -> None:
    forged = Origin(kind="event", source="/elsewhere", sweep="sweep-" + "a" * 24)
    job = (await ingest.intake.create_job(POINTER, origin=forged)).job
    assert not job.is_trial


async def test_taken_twice_a_job_has_one_root_and_the_first_trace(ingest: Ingest, spans: Spans) -> None:
    first = await ingest.take()
    again = await ingest.take(STRANGER)

    assert again == first
    taken = ["ingest", "publish dataset.uploaded"]
    assert sorted(spans.below(spans.one("job"))) == sorted(taken * 2)
    assert spans.below(STRANGER) == []


async def test_settings_that_are_wrong_show_as_a_failed_ingest(ingest: Ingest, spans: Spans) -> None:
    await ingest.objects.at("datasets").put("canary-file.job.yaml", b"suffixx: canary-text\n")

    await ingest.take()

    assert spans.one("ingest").status.description == "failed"
    assert spans.below(spans.one("job")) == ["ingest", "publish job.failed"]
    assert "canary" not in "".join(span.to_json() for span in spans.all)


@pytest.mark.parametrize(("model", "setting"), [("acme/secret", "MODEL__ID"), ("acme/other", "MODEL__ALLOWED")])
async def test_a_model_that_is_not_served_fails_the_job_before_anything_is_spent(
    ingest: Ingest, model: str, setting: str
) -> None:
    await ingest.objects.at("datasets").put("canary-file.job.yaml", f"model: {model}\n".encode())

    job = await ingest.take()

    [failed] = [published.event for published in ingest.bus.published]
    assert isinstance(failed, JobFailed)
    assert (failed.job_id, failed.stage) == (job.job_id, "ingest")
    assert (failed.code, failed.param) == ("model_not_found", "model")
    assert f"TUNESTREAM_{setting}" in failed.message


EARLIER = "ftjob-abcdefgh234567abcdefgh23"
TUNED = "ft:tiny:tunestream:mine:abcdefgh"


async def trained(ingest: Ingest, base: str = "acme/tiny") -> FolderReference:
    """The ledger after the training of `TUNED`."""
    prefix = f"jobs/{EARLIER}/trainer/attempt-1/adapter/"
    manifest = await ingest.objects.put(f"{prefix}manifest.json", b"{}")
    adapter = FolderReference(bucket="tunestream", prefix=prefix, manifest=manifest)
    event = TrainingCompleted(
        job_id=EARLIER,
        model=TUNED,
        base=base,
        adapter=adapter,
        rank=16,
        steps=1,
        epochs=1,
        trained_tokens=1,
        train_loss=1.0,
        overfitting=Overfitting(verdict="unknown", reason=""),
    )
    await outbox.commit(
        ingest.objects, outbox.result_of(EARLIER, "trainer", 1, "owner", "completed", event, 1_000_000.0)
    )
    return adapter


async def test_a_job_that_names_a_tuned_model_starts_from_its_adapter_on_its_base(ingest: Ingest) -> None:
    adapter = await trained(ingest)
    await ingest.objects.at("datasets").put("canary-file.job.yaml", f'model: "{TUNED}"\n'.encode())

    job = await ingest.take()

    assert (job.base, job.start_from) == ("acme/tiny", adapter)
    assert job.model.startswith("ft:tiny:tunestream::")
    [published] = ingest.bus.published
    assert isinstance(published.event, DatasetUploaded)


@pytest.mark.parametrize("model", [TUNED[:-1] + "z", f"{TUNED}:ckpt-step-3", "ft:mine"])
async def test_a_tuned_model_that_nobody_trained_fails_the_job(ingest: Ingest, model: str) -> None:
    await trained(ingest)
    await ingest.objects.at("datasets").put("canary-file.job.yaml", f'model: "{model}"\n'.encode())

    await ingest.take()

    [failed] = [published.event for published in ingest.bus.published]
    assert isinstance(failed, JobFailed)
    assert (failed.code, failed.param) == ("model_not_found", "model")
    assert model in failed.message


async def test_a_tuned_model_of_a_base_that_may_not_be_tuned_any_more_fails_the_job(ingest: Ingest) -> None:
    await trained(ingest, base="acme/old")
    await ingest.objects.at("datasets").put("canary-file.job.yaml", f'model: "{TUNED}"\n'.encode())

    await ingest.take()

    [failed] = [published.event for published in ingest.bus.published]
    assert isinstance(failed, JobFailed)
    assert (failed.code, "acme/old" in failed.message) == ("model_not_found", True)


@pytest.mark.parametrize(("model", "notes"), [("gpt-4o", 0), ("gpt-4.1-nano-2025-04-14", 1), ("acme/tiny", 0)])
async def test_a_foreign_name_stands_for_a_base_and_a_note_says_if_nobody_chose_it(
    ingest: Ingest, model: str, notes: int
) -> None:
    await ingest.objects.at("datasets").put("canary-file.job.yaml", f"model: {model}\n".encode())
    job = await ingest.take()
    assert (job.base, len(job.notes)) == ("acme/tiny", notes)
    assert all(model in note and "acme/tiny" in note for note in job.notes)


async def test_a_drop_of_another_project_cannot_start_from_a_tuned_model(ingest: Ingest) -> None:
    await trained(ingest)
    datasets = ingest.objects.at("datasets")
    await datasets.put("projects/acme/a.jsonl", b"{}\n")
    await datasets.put("projects/acme/a.job.yaml", f'model: "{TUNED}"\n'.encode())
    pointer = DatasetPointer(bucket="datasets", key="projects/acme/a.jsonl")
    made = await ingest.intake.create_job(pointer, origin=Origin(kind="drop"))
    assert made.job.project == "acme"
    [failed] = [published.event for published in ingest.bus.published]
    assert isinstance(failed, JobFailed) and failed.code == "model_not_found"

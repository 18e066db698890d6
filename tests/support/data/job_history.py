"""The history of one job: the documents that its stages write to the ledger, and the events that they publish."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from shared import ids
from shared.events import (
    Claim,
    DatasetPointer,
    DatasetUploaded,
    DatasetValidated,
    EvalCompleted,
    Event,
    EventRecord,
    FolderReference,
    Interval,
    Job,
    JobFailed,
    JobProgress,
    JobSpec,
    ModelDeployed,
    Origin,
    Overfitting,
    Reference,
    Served,
    Split,
    StageResult,
    TrainingCompleted,
)
from shared.kafka.bus import Delivery
from shared.stages.ledger import attempt_prefix, job_key, stage_prefix
from tests.support.fakes.store import FakeStore

T0 = 1_700_000_000.25
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ENDPOINT = "http://127.0.0.1:8000/v1"


@dataclass(frozen=True)
class DeliveredEvent:
    """An event as the bus delivers it."""

    event: Event
    ce_id: str
    at: float

    @property
    def delivery(self) -> Delivery:
        return delivery(self.event, self.ce_id, self.at)


def delivery(event: Event, ce_id: str, at: float) -> Delivery:
    return Delivery(topic=event.topic, ce_id=ce_id, source="/tunestream/test", traceparent=None, time=at)


class JobHistory:
    """A job from its upload to its deployment. `write_documents` writes what its stages leave in the ledger; `events`
    are the events that they publish."""

    def __init__(self, number: int = 1, *, created_at: float = T0, deployed: bool = True) -> None:
        self.job_id = f"ftjob-{ids.derive('test', number)}"
        self.created_at = created_at
        self.deployed = deployed
        self.model = ids.model_id(self.job_id, "tiny-base", "tunestream", "support")
        self.job = Job(
            job_id=self.job_id,
            created_at=created_at,
            dataset=self._reference("support.jsonl", "datasets"),
            spec=JobSpec(suffix="support", metadata={"team": "help"}),
            base="tiny-base",
            model=self.model,
            alias="support",
            origin=Origin(kind="drop", source="datasets/support.jsonl"),
            traceparent=f"00-{TRACE}-00f067aa0ba902b7-01",
        )

    # --- events -----------------------------------------------------------------------------------------------

    @property
    def uploaded(self) -> DatasetUploaded:
        pointer = DatasetPointer.model_validate(self.job.dataset.model_dump())
        return DatasetUploaded(job_id=self.job_id, dataset=pointer, spec=self.job.spec, origin=self.job.origin)

    @property
    def validated(self) -> DatasetValidated:
        split = Split(reference=self._reference("train.jsonl"), examples=80, tokens=800)
        return DatasetValidated(
            job_id=self.job_id,
            method="supervised",
            format="chat",
            train=split,
            test=split.model_copy(update={"examples": 20, "tokens": 200}),
            report=self._artifact("validate", "report.json"),
            served=Served(rows=80, turns=80, server="0.32.0", template="3f2a91c07b1e"),
            task="text",
            page=self._artifact("validate", "report.html"),
        )

    @property
    def trained(self) -> TrainingCompleted:
        return TrainingCompleted(
            job_id=self.job_id,
            model=self.model,
            base="tiny-base",
            adapter=FolderReference(bucket="tunestream", prefix="adapter/", manifest=self._reference("manifest.json")),
            rank=16,
            steps=3,
            epochs=1.0,
            trained_tokens=1234,
            train_loss=0.5,
            valid_loss=0.6,
            overfitting=Overfitting(verdict="healthy", reason="both losses fall"),
            hyperparameters={"n_epochs": 1},
            artifacts={name: self._artifact("trainer", name) for name in ("curves.png", "results.csv")},
        )

    @property
    def evaluated(self) -> EvalCompleted:
        return EvalCompleted(
            job_id=self.job_id,
            model=self.model,
            base="tiny-base",
            examples=20,
            metric="rouge_l",
            scores={"base": {"rouge_l": 0.1}, "few_shot": {"rouge_l": 0.2}, "tuned": {"rouge_l": 0.6}},
            delta=Interval(mean=0.5, low=0.4, high=0.6, confidence=0.95),
            passed=self.deployed,
            reasons=("better than the base",),
            report=self._artifact("evaluator", "report.json"),
            html=self._artifact("evaluator", "report.html"),
        )

    @property
    def ended(self) -> ModelDeployed | JobProgress:
        if self.deployed:
            return ModelDeployed(job_id=self.job_id, model=self.model, alias="support", endpoint=ENDPOINT)
        return JobProgress(
            job_id=self.job_id, stage="inference", state="not_promoted", message="no better than its base"
        )

    def progress(self, stage: str, state: str = "running", **more: Any) -> JobProgress:
        return JobProgress.model_validate({"job_id": self.job_id, "stage": stage, "state": state, **more})

    def failed(self, stage: str = "trainer", code: str = "out_of_memory") -> JobFailed:
        return JobFailed.model_validate(
            {"job_id": self.job_id, "stage": stage, "code": code, "message": "Lower batch_size.", "param": "batch_size"}
        )

    @property
    def results(self) -> dict[str, tuple[Event, float]]:
        """The event of every stage, and when it was decided, in seconds after the job was created."""
        return {
            "ingest": (self.uploaded, 0.1),
            "validate": (self.validated, 2.0),
            "trainer": (self.trained, 20.0),
            "evaluator": (self.evaluated, 30.0),
            "inference": (self.ended, 40.0),
        }

    @property
    def events(self) -> list[DeliveredEvent]:
        """Every event of the job, in the order of publication."""
        delivered = []
        for stage, (event, at) in self.results.items():
            if stage != "ingest":
                started = self.progress(stage, "started", message=f"{stage} started")
                delivered.append(self._deliver(started, at - 1.5, stage, 1, 1))
            if stage == "trainer":
                delivered += [
                    self._deliver(step, at - 1 + number / 10, stage, 1, number) for number, step in self._steps()
                ]
            delivered.append(self._deliver(event, at + 0.01, stage))
        return delivered

    def _steps(self) -> list[tuple[int, JobProgress]]:
        losses = [{"train_loss": 1.5}, {"train_loss": 1.0, "valid_loss": 1.1}, {"train_loss": 0.5, "valid_loss": 0.6}]
        return [
            (step + 1, self.progress("trainer", step=step, total_steps=3, eta_seconds=3.0 - step, data=data))
            for step, data in enumerate(losses, start=1)
        ]

    def _deliver(self, event: Event, after: float, *place: Any) -> DeliveredEvent:
        return DeliveredEvent(event, ids.event_id(self.job_id, event.topic, *place), self.created_at + after)

    # --- documents --------------------------------------------------------------------------------------------

    async def accept(self, objects: FakeStore) -> None:
        await objects.put(job_key(self.job_id), self.job.model_dump_json().encode())

    async def finish(self, objects: FakeStore, stage: str, event: Event, after: float, outcome: str) -> None:
        """Write the result of a stage."""
        record = EventRecord.of(event, ids.event_id(self.job_id, event.topic, stage))
        result = StageResult.model_validate(
            {
                "job_id": self.job_id,
                "stage": stage,
                "attempt": 1,
                "owner": "test",
                "outcome": outcome,
                "event": record,
                "finished_at": self.created_at + after,
            }
        )
        await objects.put(stage_prefix(self.job_id, stage) + "result.json", result.model_dump_json().encode())

    async def claim(self, objects: FakeStore, stage: str, **fields: Any) -> None:
        claim = Claim.model_validate({"owner": "test", "attempt": 1, "expires": 0.0, **fields})
        await objects.put(stage_prefix(self.job_id, stage) + "claim.json", claim.model_dump_json().encode())

    async def write_documents(self, objects: FakeStore, *, until: str = "inference") -> None:
        """Write all documents of the job up to the completion of the stage `until`."""
        await self.accept(objects)
        for stage, (event, after) in self.results.items():
            for name in ("report.json", "report.html", "curves.png", "results.csv"):
                await objects.put(attempt_prefix(self.job_id, stage, 1) + name, self._bytes(stage, name))
            await self.finish(objects, stage, event, after, "completed")
            if stage == until:
                return

    def _bytes(self, stage: str, name: str) -> bytes:
        return f"{name} of {stage}".encode()

    def _artifact(self, stage: str, name: str) -> Reference:
        return _reference("tunestream", attempt_prefix(self.job_id, stage, 1) + name, self._bytes(stage, name))

    def _reference(self, key: str, bucket: str = "tunestream") -> Reference:
        return _reference(bucket, key, key.encode())


def _reference(bucket: str, key: str, data: bytes) -> Reference:
    return Reference(bucket=bucket, key=key, etag="e", size=len(data), sha256=hashlib.sha256(data).hexdigest())

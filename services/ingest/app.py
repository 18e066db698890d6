"""Composition of the ingest service: three ways to find a dataset and one way to make its job; and the jobs that
users ask the api for."""

from __future__ import annotations

from services.ingest.announcer import Announcer
from services.ingest.deduplicator import Deduplicator
from services.ingest.inbox import Inbox
from services.ingest.intake import Intake
from services.ingest.notifications import BucketNotifications
from services.ingest.preparation import Preparation
from services.ingest.requests import Requests
from services.ingest.sweep import Sweep
from services.ingest.synthesis.stage import SynthesisStage
from shared.events import DatasetUploaded, JobControl, SynthesisRequested
from shared.service import Context, Parts, run


def build(context: Context) -> Parts:
    """Connect the parts of the service."""
    settings, bucket = context.settings, context.objects.at(context.settings.store.datasets_bucket)
    announcer = Announcer(context.objects, context.bus)
    preparation = Preparation(context.objects, settings.ingest)
    intake = Intake(context.objects, announcer, settings, preparation)
    deduplicator = Deduplicator(context.objects, intake, announcer, bucket.bucket)
    inbox = Inbox(context.objects, intake, deduplicator)
    synthesis = SynthesisStage(
        context.objects,
        bucket,
        context.bus,
        settings.synthesis,
        owner=announcer.owner,
        lease_seconds=settings.stage.lease_seconds,
    )
    sweep = Sweep(bucket, deduplicator, settings.ingest, listed=synthesis.listed)
    notifications = BucketNotifications(bucket, deduplicator)
    requests = Requests(context.objects, context.bus, preparation)
    context.bus.subscribe(DatasetUploaded, inbox.announced)
    context.bus.subscribe(JobControl, requests.rung)
    context.bus.subscribe(SynthesisRequested, synthesis.requested)
    if topic := settings.ingest.notifications_topic:
        context.bus.subscribe_raw(topic, notifications.received)
    return Parts(background=(announcer.run, inbox.run, sweep.run, notifications.run, requests.run, synthesis.run))


def main() -> None:
    run("ingest", build)

"""Composition of the ingest service."""

from __future__ import annotations

from services.ingest.inbox import Inbox
from services.ingest.intake import Intake
from services.ingest.notifications import Doorbell
from services.ingest.sweep import Sweep
from services.ingest.taking import Taking
from shared.events import DatasetUploaded
from shared.service import Context, Parts, run


def build(context: Context) -> Parts:
    settings, bucket = context.settings, context.objects.at(context.settings.store.datasets_bucket)
    intake = Intake(context.objects, context.bus, settings, context.clock)
    taking = Taking(context.objects, intake, bucket.bucket)
    inbox = Inbox(context.objects, intake, taking)
    sweep = Sweep(bucket, taking, settings.ingest, context.clock)
    doorbell = Doorbell(bucket, taking)
    context.bus.subscribe(DatasetUploaded, inbox.announced)
    if topic := settings.ingest.notifications_topic:
        context.bus.subscribe_raw(topic, doorbell.rung)
    return Parts(background=(inbox.run, sweep.run, doorbell.run))


def main() -> None:
    run("ingest", build)

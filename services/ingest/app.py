"""Composition of the ingest service."""

from __future__ import annotations

from services.ingest.intake import Intake
from services.ingest.sweep import Sweep
from shared.events import DatasetUploaded
from shared.service import Context, Parts, run


def build(context: Context) -> Parts:
    settings = context.settings
    intake = Intake(context.objects, context.bus, settings, context.clock)
    sweep = Sweep(context.objects, intake, settings.ingest, settings.store.datasets_bucket, context.clock)
    context.bus.subscribe(DatasetUploaded, sweep.announced)
    return Parts(background=(sweep.run,))


def main() -> None:
    run("ingest", build)

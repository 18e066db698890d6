"""Composition of the trainer service: which work runs when a dataset was validated."""

from __future__ import annotations

from services.trainer.work import TrainWork
from shared.service import run_stage_service


def main() -> None:
    run_stage_service("trainer", lambda context: TrainWork(context.objects, context.settings, context.clock))

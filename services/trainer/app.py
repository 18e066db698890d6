"""Composition of the trainer service: `dataset.validated` in, `training.completed` out."""

from __future__ import annotations

from services.trainer.work import TrainWork
from shared.service import run_stage_service


def main() -> None:
    run_stage_service("trainer", lambda context: TrainWork(context.objects, context.settings))

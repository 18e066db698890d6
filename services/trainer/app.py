"""Composition of the trainer service: `dataset.validated` in, `training.completed` out."""

from __future__ import annotations

from services.trainer.job.folders import remove_unused
from services.trainer.tracking.trackers import check
from services.trainer.work import TrainWork
from shared.service import Context, run_stage_service
from shared.stages.stage import Work


def main() -> None:
    run_stage_service("trainer", make_work)


def make_work(context: Context) -> Work:
    check(context.settings.tracking)
    remove_unused(context.settings.trainer.work_dir.absolute())
    return TrainWork(context.objects, context.settings)

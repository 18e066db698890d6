"""Composition of the trainer service: `dataset.validated` in, `training.completed` out."""

from __future__ import annotations

from services.trainer.job.ahead import ProcessAhead
from services.trainer.job.folders import remove_unused
from services.trainer.tracking.trackers import check
from services.trainer.work import TrainWork
from shared.service import Context, Parts, run


def main() -> None:
    run("trainer", build)


def build(context: Context) -> Parts:
    settings = context.settings.trainer
    check(context.settings.tracking)
    remove_unused(settings.work_dir.absolute())
    ahead = ProcessAhead(gpu=settings.gpu, threads=settings.threads) if settings.process_ahead else None
    return Parts(
        work=TrainWork(context.objects, context.settings, ahead),
        background=(ahead.run,) if ahead else (),
    )

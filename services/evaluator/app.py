"""Composition: the stage runner, the object store and the work. No decision is made here."""

from __future__ import annotations

from services.evaluator.work import EvaluateWork
from shared.service import run_stage_service


def main() -> None:
    run_stage_service("evaluator", lambda context: EvaluateWork(context.objects, context.settings, clock=context.clock))

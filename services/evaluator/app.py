"""Composition of the evaluator service: `training.completed` in, `eval.completed` out."""

from __future__ import annotations

from services.evaluator.work import EvaluateWork
from shared.service import run_stage_service


def main() -> None:
    run_stage_service("evaluator", lambda context: EvaluateWork(context.objects, context.settings))

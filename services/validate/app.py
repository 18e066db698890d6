"""Composition of the validate service: `dataset.uploaded` in, `dataset.validated` out."""

from __future__ import annotations

from services.validate.work import ValidateWork
from shared.base.reading import without_torch
from shared.service import run_stage_service


def main() -> None:
    without_torch()
    run_stage_service("validate", lambda context: ValidateWork(context.objects, context.settings))

"""How the training process tells what ended it."""

from __future__ import annotations

import json
import time
import traceback

from services.trainer.engine.messages import ErrorDocument, ExitCode, Failed, ProcessLost
from services.trainer.engine.report.reporter import Reporter
from shared.disk import is_full
from shared.errors import ConfigError, InputError, TransientError


def report_end(error: Exception, reporter: Reporter) -> ExitCode | None:
    """Write `error.json` and a message. Returns the exit code; None: a crash, of which nothing is written."""
    if isinstance(error, InputError):
        _report(ErrorDocument.of(error), reporter)
        return ExitCode.WRONG_INPUT
    if isinstance(error, ConfigError):
        _report(ErrorDocument(code="wrong_setting", message=str(error)), reporter)
        return ExitCode.WRONG_SETTING
    if isinstance(error, TransientError):
        _report(ErrorDocument(code="unavailable", message=str(error)), reporter)
        return ExitCode.UNAVAILABLE
    if isinstance(error, ProcessLost):
        _report(ErrorDocument(code="process_lost", message=str(error)), reporter)
        return ExitCode.PROCESS_LOST
    if is_full(error):
        traceback.print_exception(error)
        return ExitCode.NO_SPACE
    return None


def _report(document: ErrorDocument, reporter: Reporter) -> None:
    (reporter.out / "error.json").write_text(json.dumps(document.model_dump()) + "\n")
    reporter.send(Failed(at=time.time(), **document.model_dump()))

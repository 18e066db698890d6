"""Logs: one JSON object per line on stderr, with fields from an allow-list."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

# the fields that a log line may have beside its message; any other may hold user text
LOG_FIELDS = (
    "job_id", "trace_id", "stage", "outcome", "reason", "topic", "offset", "partition", "event", "port", "pid",
    "status", "seconds", "count", "model", "step", "code", "attempt", "signal", "operation",
    "key_id", "project", "by",
)  # fmt: skip


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, service, logger, message and the allow-listed extra fields.

    Of an exception, only the class and the place are written: its message may quote a row.
    """

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in LOG_FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[0]:
            line["exception"] = record.exc_info[0].__name__
            line["stack"] = _frames(record)
        return json.dumps(line, default=str)


def _frames(record: logging.LogRecord) -> list[str]:
    traceback = record.exc_info[2] if record.exc_info else None
    frames = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{code.co_filename}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return frames


def set_up(service: str, level: str) -> None:
    """Log to stderr as `service`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("aiokafka", "httpx", "httpcore", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # aiokafka reports every refused connection and every rebalance as an error with a stack
    logging.getLogger("aiokafka.consumer.group_coordinator").setLevel(logging.CRITICAL)

"""What Kafka's ACLs deny us, in one line that names the topic or group and the user.

A missing ACL is an operator's mistake: events are kept and tried again, and the line is repeated until it is mended.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)

from shared.settings import BusSettings


def denied(error: BaseException, settings: BusSettings, action: str = "use") -> str | None:
    """The line; None where `error` is about something else."""
    user = repr(settings.sasl_username) if settings.sasl_username else "without a name"
    refuses = f"Kafka does not let the user {user} (TUNESTREAM_BUS__SASL_USERNAME)"
    names = _names(error)
    if isinstance(error, TopicAuthorizationFailedError):
        return f"{refuses} {action} the topic {names or '(not named)'}: add an ACL for it"
    if isinstance(error, GroupAuthorizationFailedError):
        return f"{refuses} join the consumer group {names or '(not named)'}: add an ACL with Read for it"
    if isinstance(error, ClusterAuthorizationFailedError):
        return f"{refuses} publish: add an ACL with Write for at least one topic, or IdempotentWrite for the cluster"
    return None


_EXPECTED = "Auto create topics is disabled"  # a warning for each subscriber; the init step makes the topics


class ConsumerLog:
    """FastStream's logger, writing our JSON lines. FastStream reports a missing ACL by a traceback, every 5 s and for
    ever; this writes the line that says which."""

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings
        self._log = logging.getLogger(__name__)  # not FastStream's own, which has a handler and a format of its own

    def log(self, level: int, msg: Any, /, *, exc_info: Any = None, extra: Mapping[str, Any] | None = None) -> None:
        if level < logging.WARNING or str(msg).startswith(_EXPECTED):  # below: a line for every record
            return
        if isinstance(exc_info, KafkaError) and (line := denied(exc_info, self._settings, "read")):
            msg, exc_info = line, None
        self._log.log(level, msg, exc_info=exc_info, extra=extra)


def _names(error: BaseException) -> str:
    """aiokafka gives the names as a string or a set of them, or not at all."""
    given = error.args[0] if error.args else ()
    return ", ".join(sorted([given] if isinstance(given, str) else given))

"""Explains what Kafka's ACLs deny, in one line that names the topic or group and the user.

A missing ACL is an operator's mistake. Events are kept and retried, and the line is logged again until it is fixed.
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
    """One line that explains `error`; None if it is not about a missing ACL."""
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
    """The logger that FastStream is given. It writes our JSON lines. For a missing ACL it writes one line that names
    it, where FastStream would write a traceback every 5 s."""

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings
        self._log = logging.getLogger(__name__)  # not FastStream's own, which has a handler and a format of its own

    def log(self, level: int, msg: Any, /, *, exc_info: Any = None, extra: Mapping[str, Any] | None = None) -> None:
        if level < logging.WARNING or str(msg).startswith(_EXPECTED):  # FastStream logs a line for every record
            return
        if isinstance(exc_info, KafkaError) and (line := denied(exc_info, self._settings, "read")):
            msg, exc_info = line, None
        self._log.log(level, msg, exc_info=exc_info, extra=extra)


def _names(error: BaseException) -> str:
    """The names of the topics or groups; aiokafka gives a string, a set of strings, or nothing."""
    given = error.args[0] if error.args else ()
    return ", ".join(sorted([given] if isinstance(given, str) else given))

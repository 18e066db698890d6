"""Judges the errors of aiokafka. Only what is on a list here is transient: everything else would come again, however
often the same event is sent."""

from __future__ import annotations

from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    BrokerNotAvailableError,
    ClusterAuthorizationFailedError,
    CorruptRecordException,
    GroupAuthorizationFailedError,
    IllegalSaslStateError,
    IncompatibleBrokerVersion,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    KafkaUnavailableError,
    NoBrokersAvailable,
    NodeNotReadyError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    ProducerFenced,
    QuotaViolationError,
    ReplicaNotAvailableError,
    RequestTimedOutError,
    SaslAuthenticationFailed,
    SecurityDisabled,
    TopicAuthorizationFailedError,
    UnknownError,
    UnknownProducerId,
    UnrecognizedBrokerVersion,
    UnsupportedSaslMechanismError,
    UnsupportedVersionError,
)

from shared.errors import EventRefused, TransientError, TunestreamError
from shared.kafka.access import denied
from shared.settings import BusSettings

NO_ANSWER = (
    KafkaConnectionError,
    KafkaTimeoutError,
    KafkaUnavailableError,
    NoBrokersAvailable,
    NodeNotReadyError,
    RequestTimedOutError,
    OSError,
    TimeoutError,
)
"""The broker did not answer. (`TimeoutError` is an `OSError` since Python 3.11; it is named for the reader.)"""

_BUSY = (BrokerNotAvailableError, ReplicaNotAvailableError, QuotaViolationError, UnknownError, CorruptRecordException)
"""The broker answered, and may take the same record later. aiokafka does not call them retriable, Kafka does (or, for
the unknown error of the broker itself, says nothing)."""

_OPERATOR = (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IllegalSaslStateError,
    IncompatibleBrokerVersion,
    SaslAuthenticationFailed,
    SecurityDisabled,
    TopicAuthorizationFailedError,
    UnrecognizedBrokerVersion,
    UnsupportedSaslMechanismError,
    UnsupportedVersionError,
)
"""An operator's mistake, which must not lose an event: a missing ACL, a changed password, an old broker."""

_PRODUCER = (
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    ProducerFenced,
    UnknownProducerId,
)


def producer_is_spent(error: BaseException) -> bool:
    """Whether the producer that raised `error` will raise it for every further event, until it is replaced.

    aiokafka raises a bare `KafkaError` when the task that sends has ended.
    """
    return isinstance(error, _PRODUCER) or type(error) is KafkaError


def passes_by_itself(error: BaseException) -> bool:
    """Whether the broker may take the same request later, without anybody's help."""
    return isinstance(error, (*NO_ANSWER, *_BUSY)) or (isinstance(error, KafkaError) and bool(error.retriable))


def is_transient(error: BaseException) -> bool:
    """Whether the same record may be taken later."""
    return passes_by_itself(error) or isinstance(error, _OPERATOR) or producer_is_spent(error)


def translate(error: KafkaError | OSError, settings: BusSettings) -> TunestreamError:
    """The `TransientError` or `EventRefused` to raise for an event that could not be published because of `error`."""
    name = type(error).__name__
    if is_transient(error):
        line = denied(error, settings, "write to")
        return TransientError(line or f"the event could not be published: {name}")
    return EventRefused(f"the bus does not take the event: {name}")

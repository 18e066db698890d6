"""Finds out why a client cannot connect to Kafka.

aiokafka reports a wrong password, a certificate that does not verify and a broker that is down all as "unable to
bootstrap". One connection of our own shows the cause, so that a service can stop at once where waiting does not help.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from typing import Any

from aiokafka.conn import AIOKafkaConnection, collect_hosts, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
    for_code,
)
from aiokafka.protocol.admin import SaslHandShakeRequest

from shared import tls
from shared.kafka.access import denied
from shared.kafka.security import client_options
from shared.settings import BusSettings

TIMEOUT_MS = 5_000

CREDENTIALS_SECONDS = 10.0
"""SCRAM users and ACLs are created through a running broker, so an init step may still be creating ours."""


@dataclass(frozen=True)
class Cause:
    """Why a client cannot connect, in a case in which waiting is not expected to help."""

    line: str
    """What is wrong, which setting it concerns, and how to fix it."""
    patience_seconds: float = 0.0
    """How long to keep trying first, because another process may still remove the cause."""


async def find_cause(settings: BusSettings, error: BaseException) -> Cause | None:
    """Find out why a client failed to start with `error`. None: the broker is only down, or the cause is unknown.

    Raises:
        ConfigError: our own certificate or key cannot be used.
    """
    if line := denied(error, settings):
        return Cause(line, CREDENTIALS_SECONDS)
    options = client_options(settings)
    for host, port, _ in collect_hosts(settings.bootstrap, randomize=False):
        if cause := await _examine(settings, options, host, port):
            return cause
    return None


async def _examine(settings: BusSettings, options: dict[str, Any], host: str, port: int) -> Cause | None:
    peer = f"Kafka at {host}:{port}"
    protocol = f"TUNESTREAM_BUS__SECURITY_PROTOCOL ({settings.security_protocol})"
    try:
        connection = await create_conn(host, port, request_timeout_ms=TIMEOUT_MS, **options)
    except SaslAuthenticationFailed:
        return Cause(
            f"{peer} refuses the user {settings.sasl_username!r} (TUNESTREAM_BUS__SASL_USERNAME, "
            "TUNESTREAM_BUS__SASL_PASSWORD): wrong password, or the user does not exist",
            CREDENTIALS_SECONDS,
        )
    except UnsupportedSaslMechanismError:
        return Cause(f"{peer} does not take TUNESTREAM_BUS__SASL_MECHANISM ({settings.sasl_mechanism}): name another")
    except IllegalSaslStateError:
        return Cause(f"{peer} takes no user and password here: set {protocol} to SSL or PLAINTEXT, or use another port")
    except ssl.SSLCertVerificationError as error:
        line = await asyncio.to_thread(tls.explain_rejection, error, peer, host, port, "BUS", settings.ca_file)
        return Cause(line)
    except (ConnectionRefusedError, TimeoutError, socket.gaierror):
        return None
    except (KafkaError, OSError) as error:
        if tls.refuses_client_certificate(error.__cause__ or error):
            return Cause(_our_certificate(settings, peer))
        if settings.uses_tls:
            if await _speaks_plaintext(host, port):
                return Cause(
                    f"{peer} speaks no TLS here: set {protocol} to SASL_PLAINTEXT or PLAINTEXT, or use another port"
                )
        elif await asyncio.to_thread(tls.speaks_tls, host, port):
            return Cause(f"{peer} speaks TLS here: set {protocol} to SASL_SSL or SSL, or use another port")
        return None
    try:
        if not settings.uses_sasl and await _wants_sasl(connection):
            return Cause(f"{peer} wants a user and password here: set {protocol} to SASL_SSL or SASL_PLAINTEXT")
    finally:
        connection.close()
    return None


def _our_certificate(settings: BusSettings, peer: str) -> str:
    if settings.cert_file is None:
        return f"{peer} asks for a client certificate: set TUNESTREAM_BUS__CERT_FILE and TUNESTREAM_BUS__KEY_FILE"
    return (
        f"{peer} refuses TUNESTREAM_BUS__CERT_FILE ({settings.cert_file}): it has expired, or is not signed by a CA "
        "that Kafka trusts"
    )


async def _speaks_plaintext(host: str, port: int) -> bool:
    try:
        connection = await create_conn(host, port, request_timeout_ms=TIMEOUT_MS)
    except (KafkaError, OSError):
        return False
    connection.close()
    return True


async def _wants_sasl(connection: AIOKafkaConnection) -> bool:
    """Whether a listener expects SASL. If it does, it answers the first step, even if it does not know the
    mechanism."""
    try:
        answer = await connection.send(SaslHandShakeRequest("SCRAM-SHA-512"))
    except (KafkaError, OSError):
        return False
    return for_code(answer.error_code) is not IllegalSaslStateError

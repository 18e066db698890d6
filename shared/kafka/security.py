"""TLS (with verified host names) and SASL for every Kafka client of Tunestream."""

from __future__ import annotations

from typing import Any

from faststream.kafka.security import parse_security
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from shared import tls
from shared.settings import BusSettings

_MECHANISMS: dict[str, type[SASLPlaintext | SASLScram256 | SASLScram512]] = {
    "PLAIN": SASLPlaintext,
    "SCRAM-SHA-256": SASLScram256,
    "SCRAM-SHA-512": SASLScram512,
}


def broker_security(settings: BusSettings) -> BaseSecurity | None:
    """The `security` of a FastStream broker; None means neither TLS nor SASL.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    context = (
        tls.client_context("BUS", settings.ca_file, settings.cert_file, settings.key_file)
        if settings.uses_tls
        else None
    )
    if not settings.uses_sasl:
        return BaseSecurity(context) if context else None
    assert settings.sasl_username and settings.sasl_password, "the settings were checked"
    return _MECHANISMS[settings.sasl_mechanism](
        settings.sasl_username, settings.sasl_password.get_secret_value(), context
    )


def client_options(settings: BusSettings) -> dict[str, Any]:
    """TLS and SASL as keyword arguments of aiokafka's producer, consumer, admin client and connections.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    return parse_security(broker_security(settings))

"""TLS to Kafka and to the object store: the client's context, and one-line explanations of failed handshakes."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path

from shared.errors import ConfigError

PROBE_SECONDS = 5.0

# numbers of OpenSSL (X509_V_ERR_*) that have no name in Python's ssl
_NOT_YET_VALID = 9
_EXPIRED = 10
_UNKNOWN_CA = {18, 19, 20, 21}
_WRONG_NAME = {62, 64}
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME


def client_context(
    section: str, ca_file: Path | None, cert_file: Path | None = None, key_file: Path | None = None
) -> ssl.SSLContext:
    """A context that verifies the server's certificate and its host name.

    Args:
        section: the section of the settings, `BUS` or `STORE`; the errors name its variables.

    Raises:
        ConfigError: a file does not hold the certificate or key that it should.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # which includes ssl.SSLError
        raise ConfigError(
            f"TUNESTREAM_{section}__CA_FILE: {ca_file} holds no certificate in PEM ({_reason(error)})"
        ) from None
    if cert_file and key_file:
        try:
            # with an empty password an encrypted key is an error; with None OpenSSL would ask at the terminal and wait
            context.load_cert_chain(cert_file, key_file, password="")
        except OSError as error:
            raise ConfigError(
                f"TUNESTREAM_{section}__CERT_FILE, TUNESTREAM_{section}__KEY_FILE: {cert_file} and {key_file} are not "
                f"a certificate and its unencrypted key in PEM ({_reason(error)})"
            ) from None
    return context


def explain_rejection(
    error: ssl.SSLCertVerificationError, peer: str, host: str, port: int, section: str, ca: Path | None
) -> str:
    """One line that says why the certificate of `peer` ("Kafka at kafka:9092") is not accepted, and what to do."""
    setting = f"TUNESTREAM_{section}__CA_FILE"
    if error.verify_code == _EXPIRED:
        return f"the certificate of {peer} {_expiry(host, port, ca)}: renew it there"
    if error.verify_code == _NOT_YET_VALID:
        return f"the certificate of {peer} is not valid yet: set the clock of this machine, or of the one that made it"
    if error.verify_code in _UNKNOWN_CA:
        trusted = f"in {setting} ({ca})" if ca else f"that this system trusts; {setting} may name another"
        return f"the certificate of {peer} is not signed by a CA {trusted}"
    if error.verify_code in _WRONG_NAME:
        return (
            f"the certificate of {peer} is not for the name {host}: connect by a name that it holds, or add this one "
            "to its subjectAltName"
        )
    return f"the certificate of {peer} is refused: {error.verify_message}"


def refuses_client_certificate(error: BaseException | None) -> bool:
    """Whether the server ended the handshake because it does not accept our certificate, or because we have none."""
    reason = (isinstance(error, ssl.SSLError) and error.reason) or ""
    return "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)


def speaks_tls(host: str, port: int) -> bool:
    """Whether a server answers a TLS handshake. Its certificate is not checked."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), PROBE_SECONDS) as plain, context.wrap_socket(plain):
            return True
    except OSError:
        return False


def _expiry(host: str, port: int, ca: Path | None) -> str:
    """When the certificate expired. Python shows the fields of a certificate only if it has verified it, so this check
    leaves out the time."""
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags |= _NO_CHECK_TIME
    try:
        with (
            socket.create_connection((host, port), PROBE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            ends = ssl.cert_time_to_seconds(str((secure.getpeercert() or {})["notAfter"]))
    except (OSError, KeyError, ValueError):
        return "has expired"
    end = datetime.fromtimestamp(ends, UTC)
    # if it has not expired, the certificate of a CA above it has
    return f"expired on {end:%Y-%m-%d}" if end < datetime.now(UTC) else "was signed by a CA that has expired"


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or type(error).__name__)

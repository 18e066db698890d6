"""Translates a failed call to the object store: the store is down for now, or a setting is wrong."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

import urllib3
from minio.error import S3Error

from shared import tls
from shared.errors import ConfigError, StoreUnavailable, TunestreamError
from shared.settings import StoreSettings

# the server's answer was not TLS; other failures of a handshake may come from a server that is stopping or starting
_NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"}


def translate(error: Exception, settings: StoreSettings) -> TunestreamError:
    """The `StoreUnavailable` or `ConfigError` to raise instead of an exception of `minio` or `urllib3`."""
    peer = f"the object store at {settings.endpoint} (TUNESTREAM_STORE__ENDPOINT)"
    if isinstance(error, S3Error):
        if line := _refusal(error, peer, settings):
            return ConfigError(line)
        return StoreUnavailable(f"the object store answered {error.code}")
    cause = _ssl_error(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        host, port = address(settings)
        return ConfigError(tls.explain_rejection(cause, peer, host, port, "STORE", settings.ca_file))
    if cause and cause.reason in _NO_TLS:
        return ConfigError(f"{peer} speaks no TLS: give its address with http://")
    return StoreUnavailable(f"the object store does not answer: {type(error).__name__}")


def reason(error: Exception) -> str:
    """The store's code, or the class of what broke the connection. Messages are left out: they may name an object."""
    if isinstance(error, S3Error):
        return error.code or "S3Error"
    cause = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) else None
    return type(cause or error).__name__


def wants_tls(settings: StoreSettings) -> str | None:
    """One line if an http:// address leads to a server that speaks TLS, else None. Blocks during a handshake."""
    if settings.endpoint.startswith("http://") and tls.speaks_tls(*address(settings)):
        return (
            f"the object store at {settings.endpoint} (TUNESTREAM_STORE__ENDPOINT) speaks TLS: give its address with "
            "https://"
        )
    return None


def address(settings: StoreSettings) -> tuple[str, int]:
    """Host and port of the endpoint."""
    url = urlsplit(settings.endpoint)
    return url.hostname or "", url.port or (443 if url.scheme == "https" else 80)


def _refusal(error: S3Error, peer: str, settings: StoreSettings) -> str | None:
    user = f"{settings.access_key!r} (TUNESTREAM_STORE__ACCESS_KEY)"
    if error.code == "InvalidAccessKeyId":
        return f"{peer} knows no access key {user}"
    if error.code == "SignatureDoesNotMatch":
        return f"{peer} refuses TUNESTREAM_STORE__SECRET_KEY: it is not the secret of the access key {user}"
    setting = {settings.datasets_bucket: "DATASETS_BUCKET", settings.system_bucket: "SYSTEM_BUCKET"}
    name = setting.get(error.bucket_name or "")
    bucket = f"{error.bucket_name!r}" + (f" (TUNESTREAM_STORE__{name})" if name else "")
    if error.code == "NoSuchBucket":
        return f"{peer} has no bucket {bucket}: create it, or name another"
    if error.code == "AccessDenied":
        return (
            f"{peer} denies the access key {user} a right that this service needs on the bucket {bucket}: "
            "change the policy of the key"
        )
    return None


def _ssl_error(error: BaseException | None) -> ssl.SSLError | None:
    """The error of the handshake, which urllib3 wraps twice: in an SSLError of its own, and that in a MaxRetryError."""
    while error is not None and not isinstance(error, ssl.SSLError):
        if isinstance(error, urllib3.exceptions.MaxRetryError):
            error = error.reason
        elif error.args and isinstance(error.args[0], BaseException):
            error = error.args[0]
        else:
            error = None
    return error

"""Translates a failed call to the object store: the store is away for now, a setting is wrong, or the store refuses
this call. Only what a list allows counts as being away, because that is retried without end."""

from __future__ import annotations

import re
import ssl
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import urllib3
from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3.exceptions import LocationValueError

from shared import tls
from shared.errors import ConfigError, StoreUnavailable, TunestreamError
from shared.settings import StoreSettings
from shared.store.names import refused

# the server's answer was not TLS; other failures of a handshake may come from a server that is stopping or starting
_NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"}

_AWAY = {
    # of AWS S3; see its "Error responses"
    *("InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout", "OperationAborted", "TooManyRequests"),
    *("RequestLimitExceeded", "BandwidthLimitExceeded", "Throttling", "ThrottlingException", "RequestThrottled"),
    "ConditionalRequestConflict",  # another write was under way, so this one did nothing
    # of MinIO; its other ones come with a status of 5xx
    *("SlowDownRead", "SlowDownWrite", "ServerBusy", "ClientDisconnected"),
    # of SeaweedFS
    *("ErrTooManyRequest", "ErrRequestBytesExceed"),
    # bytes were lost or changed on their way
    *("IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"),
    # an upload in parts was cleared away; the whole upload can be tried again
    *("NoSuchUpload", "InvalidPart"),
}
_PERMANENT = {501, 505}
"""Of the statuses from 500 on: a function that the store does not have."""
_AWAY_BELOW_500 = {408, 425, 429, 499}

_KEY = {
    *("ExpiredToken", "InvalidToken", "InvalidTokenId", "TokenRefreshRequired", "InvalidSecurity", "NotSignedUp"),
    *("AccountProblem", "AllAccessDisabled", "UserSuspended", "UnauthorizedAccess", "InvalidClientTokenId"),
    *("UnrecognizedClientException", "CredentialsNotSupported", "MissingSecurityHeader", "XMinioInvalidIAMCredentials"),
}
_REGION = {
    *("AuthorizationHeaderMalformed", "InvalidRegion", "IllegalLocationConstraintException", "PermanentRedirect"),
    *("TemporaryRedirect", "Redirect"),
}
_SKEW = {"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"}
_PLAIN = {"XMinioInsecureClientRequest", "InsecureClientRequest"}
_FULL = {"QuotaExceeded", "XMinioAdminBucketQuotaExceeded"}


def translate(error: Exception, settings: StoreSettings, status: int | None = None) -> TunestreamError:
    """The `StoreUnavailable`, `ConfigError` or `StoreRefused` to raise instead of an exception of `minio` or `urllib3`.

    `status`: the HTTP status of the last answer, if there was one.
    """
    peer = f"the object store at {settings.endpoint} (TUNESTREAM_STORE__ENDPOINT)"
    if isinstance(error, S3Error):
        status = error.response.status if error.response is not None else status
        code = reason(error)
        if line := _setting(error, code, peer, settings):
            return ConfigError(line)
        return StoreUnavailable(f"the object store answered {code}") if _away(code, status) else refused(code)
    if isinstance(error, ServerError):
        code = f"HTTP{error.status_code}"
        away = _away(code, error.status_code)
        return StoreUnavailable(f"the object store answered {code}") if away else refused(code)
    if isinstance(error, InvalidResponseError | ParseError):
        if _away("", status):
            return StoreUnavailable(f"the object store answered HTTP{status}")
        return ConfigError(
            f"{peer} does not answer as an S3 store does (HTTP status {status}): check the address, and any proxy on "
            "the way"
        )
    return _broken(error, peer, settings)


def reason(error: Exception) -> str:
    """The store's code, or the class of what broke the connection. Messages are left out: they may name an object."""
    if isinstance(error, S3Error):
        return re.sub(r"[^\w.-]", "", error.code or "", flags=re.ASCII)[:64] or "S3Error"
    cause = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) else None
    return type(cause or error).__name__


def wants_tls(settings: StoreSettings) -> str | None:
    """One line if an http:// address leads to a server that speaks TLS, else None. Blocks during a handshake."""
    if settings.endpoint.startswith("http://") and tls.speaks_tls(*address(settings)):
        return _speaks_tls(f"the object store at {settings.endpoint} (TUNESTREAM_STORE__ENDPOINT)")
    return None


def address(settings: StoreSettings) -> tuple[str, int]:
    """Host and port of the endpoint."""
    url = urlsplit(settings.endpoint)
    return url.hostname or "", url.port or (443 if url.scheme == "https" else 80)


def _away(code: str, status: int | None) -> bool:
    """Whether the same request may succeed later."""
    by_status = status is not None and (status >= 500 or status in _AWAY_BELOW_500) and status not in _PERMANENT
    return code in _AWAY or by_status


def _broken(error: Exception, peer: str, settings: StoreSettings) -> TunestreamError:
    """What it means that there is no answer at all."""
    cause = _ssl_error(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        host, port = address(settings)
        return ConfigError(tls.explain_rejection(cause, peer, host, port, "STORE", settings.ca_file))
    if cause and cause.reason in _NO_TLS:
        return ConfigError(f"{peer} speaks no TLS: give its address with http://")
    if isinstance(error, LocationValueError):
        return ConfigError(f"{peer} has no valid address")
    if isinstance(error, ValueError):  # the client refuses its arguments and sends nothing
        return refused("InvalidArgument")
    return StoreUnavailable(f"the object store does not answer: {reason(error)}")


def _setting(error: S3Error, code: str, peer: str, settings: StoreSettings) -> str | None:
    """One line that names the setting that the store does not accept, else None."""
    user = f"{settings.access_key!r} (TUNESTREAM_STORE__ACCESS_KEY)"
    if code == "InvalidAccessKeyId":
        return f"{peer} knows no access key {user}"
    if code == "SignatureDoesNotMatch":
        return f"{peer} refuses TUNESTREAM_STORE__SECRET_KEY: it is not the secret of the access key {user}"
    if code in _KEY:
        return f"{peer} does not accept the access key {user} any more ({code}): renew it, or give another"
    if code in _REGION:
        return (
            f"{peer} wants another region or address ({code}): TUNESTREAM_STORE__REGION is {settings.region!r}; give "
            "those of the bucket"
        )
    if code in _SKEW:
        return f"{peer} refuses the time of our requests ({code}): set the clock of this machine, or that of the store"
    if code in _PLAIN:
        return _speaks_tls(peer)
    name = {settings.datasets_bucket: "DATASETS_BUCKET", settings.system_bucket: "SYSTEM_BUCKET"}.get(
        error.bucket_name or ""
    )
    bucket = f"{error.bucket_name!r}" + (f" (TUNESTREAM_STORE__{name})" if name else "")
    if code in _FULL:
        return f"{peer} takes nothing more into the bucket {bucket}: it is full; raise its quota, or delete something"
    if code == "NoSuchBucket":
        return f"{peer} has no bucket {bucket}: create it, or name another"
    if code == "AccessDenied":
        return (
            f"{peer} denies the access key {user} a right that this service needs on the bucket {bucket}: "
            "change the policy of the key"
        )
    return None


def _speaks_tls(peer: str) -> str:
    return f"{peer} speaks TLS: give its address with https://"


def _ssl_error(error: BaseException | None) -> ssl.SSLError | None:
    """The error of the handshake, which urllib3 wraps: in an SSLError of its own, and that sometimes in a
    MaxRetryError."""
    while error is not None and not isinstance(error, ssl.SSLError):
        if isinstance(error, urllib3.exceptions.MaxRetryError):
            error = error.reason
        elif error.args and isinstance(error.args[0], BaseException):
            error = error.args[0]
        else:
            error = None
    return error

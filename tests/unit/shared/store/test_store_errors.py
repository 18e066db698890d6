"""What a failed call means: only what is on a list counts as an outage, because that is retried without end."""

from __future__ import annotations

from typing import Any

import pytest
import urllib3
from minio.error import InvalidResponseError, S3Error, ServerError

from shared.errors import ConfigError, StoreRefused, StoreUnavailable
from shared.settings import StoreSettings
from shared.store.errors import translate
from shared.store.names import check, shown

SETTINGS = StoreSettings(endpoint="http://127.0.0.1:9000")
PRIVATE = "patients of dr who"


def s3(code: str | None, status: int = 400, bucket: str = "tunestream") -> S3Error:
    response: Any = urllib3.HTTPResponse(status=status)
    return S3Error(response, code, f"message about {PRIVATE}", f"/b/{PRIVATE}", "id", "host", bucket, PRIVATE)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("InternalError", 500),
        ("SlowDown", 503),
        ("SlowDownRead", 503),
        ("ServiceUnavailable", 503),
        ("RequestTimeout", 400),
        ("OperationAborted", 409),
        ("ConditionalRequestConflict", 409),
        ("XMinioServerNotInitialized", 503),
        ("XMinioStorageFull", 507),
        ("XMinioBackendDown", 503),
        ("ErrTooManyRequest", 429),
        ("TooManyRequests", 429),
        ("IncompleteBody", 400),
        ("NoSuchUpload", 404),
        ("SomethingNew", 503),
    ],
)
def test_an_outage_is_waited_for(code: str, status: int) -> None:
    assert isinstance(translate(s3(code, status), SETTINGS), StoreUnavailable)


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("InvalidAccessKeyId", 403, "ACCESS_KEY"),
        ("SignatureDoesNotMatch", 403, "SECRET_KEY"),
        ("NoSuchBucket", 404, "SYSTEM_BUCKET"),
        ("AccessDenied", 403, "change the policy"),
        ("ExpiredToken", 400, "ACCESS_KEY"),
        ("InvalidToken", 400, "ACCESS_KEY"),
        ("AccountProblem", 403, "ACCESS_KEY"),
        ("AllAccessDisabled", 403, "ACCESS_KEY"),
        ("RequestTimeTooSkewed", 403, "clock"),
        ("AuthorizationHeaderMalformed", 400, "TUNESTREAM_STORE__REGION"),
        ("PermanentRedirect", 301, "TUNESTREAM_STORE__REGION"),
        ("XMinioInsecureClientRequest", 400, "https://"),
        ("XMinioAdminBucketQuotaExceeded", 400, "quota"),
    ],
)
def test_a_setting_that_leads_nowhere_is_named(code: str, status: int, words: str) -> None:
    error = translate(s3(code, status), SETTINGS)
    assert isinstance(error, ConfigError)
    assert words in str(error) and "TUNESTREAM_STORE__" in str(error)
    assert "\n" not in str(error) and PRIVATE not in str(error)


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("KeyTooLongError", 400, "1,024 bytes"),
        ("XMinioInvalidObjectName", 400, "rename"),
        ("InvalidObjectState", 403, "archived; restore it"),
        ("KMS.DisabledException", 400, "enable the key"),
        ("KMS.NotFoundException", 400, "enable the key"),
        ("InvalidArgument", 400, "the store's own log"),
        ("InvalidRequest", 400, "the store's own log"),
        ("MethodNotAllowed", 405, "delete marker"),
        ("NotImplemented", 501, "conditional writes"),
        ("SomethingNew", 400, "SomethingNew"),
    ],
)
def test_everything_else_is_refused_with_a_remedy_and_no_text_of_a_user(code: str, status: int, words: str) -> None:
    error = translate(s3(code, status), SETTINGS)
    assert isinstance(error, StoreRefused)
    assert error.code == code
    assert words in str(error)
    assert PRIVATE not in str(error)


def test_a_code_that_is_no_code_is_not_repeated() -> None:
    error = translate(s3(f"<b>\n{PRIVATE * 50}", 400), SETTINGS)
    assert isinstance(error, StoreRefused)
    assert "\n" not in str(error) and "<" not in str(error) and len(error.code) <= 64
    assert isinstance(translate(s3(None, 400), SETTINGS), StoreRefused)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ServerError("m", 503), None, StoreUnavailable),
        (ServerError("m", 429), None, StoreUnavailable),
        (ServerError("m", 416), None, StoreRefused),
        (InvalidResponseError(502, "text/html", "<html>"), 502, StoreUnavailable),
        (InvalidResponseError(404, "text/html", "<html>"), 404, ConfigError),
        (InvalidResponseError(200, "text/html", "<html>"), 200, ConfigError),
        (ValueError(PRIVATE), None, StoreRefused),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, PRIVATE), None, StoreRefused),
        (urllib3.exceptions.ProtocolError(PRIVATE), None, StoreUnavailable),
        (ConnectionResetError(), None, StoreUnavailable),
        (TimeoutError(), None, StoreUnavailable),
    ],
)
def test_answers_that_are_no_s3_and_no_answers(error: Exception, status: int | None, kind: type[Exception]) -> None:
    translated = translate(error, SETTINGS, status)
    assert isinstance(translated, kind)
    assert PRIVATE not in str(translated) and "<html>" not in str(translated)


# --- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bucket", "key", "code"),
    [
        ("no bucket", "a", "InvalidBucketName"),
        ("", "a", "InvalidBucketName"),
        ("a..b", "a", "InvalidBucketName"),
        ("127.0.0.1", "a", "InvalidBucketName"),
        ("../datasets", "a", "InvalidBucketName"),
        ("\ud800ab", "a", "InvalidBucketName"),
        ("datasets", "", "InvalidObjectName"),
        ("datasets", " ", "InvalidObjectName"),
        ("datasets", "../a", "InvalidObjectName"),
        ("datasets", "a/./b", "InvalidObjectName"),
        ("datasets", "half \ud800", "InvalidObjectName"),
        ("datasets", "ü" * 513, "KeyTooLongError"),
    ],
)
def test_a_name_that_no_object_has_is_refused_before_anything_is_sent(bucket: str, key: str, code: str) -> None:
    with pytest.raises(StoreRefused) as caught:
        check(bucket, key)
    assert caught.value.code == code


@pytest.mark.parametrize("key", ["a", "ü" * 512, "a/..b/c..", "/a", "a//b", "𐌀"])
def test_other_names_are_left_to_the_store(key: str) -> None:
    check("datasets", key)


def test_a_place_is_shown_in_bounds_and_as_text() -> None:
    assert shown("datasets", "a/ü.jsonl") == "datasets/a/ü.jsonl"
    assert shown("datasets", "\ud800.jsonl") == "datasets/?.jsonl"
    assert len(shown("b" * 1000, "k" * 1000)) < 250

"""Names of buckets and objects: which ones no store has, and how an error shows them."""

from __future__ import annotations

from minio.helpers import check_bucket_name, check_object_name

from shared.errors import StoreRefused

LONGEST_KEY = 1024
"""Bytes of UTF-8 in a key, the limit of S3."""
LONGEST_SHOWN = 200
IMPOSSIBLE = {"InvalidBucketName", "InvalidObjectName", "XMinioInvalidObjectName", "InvalidURI", "KeyTooLongError"}
"""The codes that say that no object can have such a name."""


def check(bucket: str, key: str) -> None:
    """Check that an object can have these names, before anything is sent.

    Raises:
        StoreRefused: it cannot.
    """
    check_prefix(bucket, key)
    try:
        check_object_name(key)
    except ValueError:
        raise refused("InvalidObjectName") from None


def check_prefix(bucket: str, prefix: str) -> None:
    """Check that a bucket can have this name, and its objects keys that begin so.

    Raises:
        StoreRefused: they cannot.
    """
    try:
        check_bucket_name(bucket)
    except ValueError:
        raise refused("InvalidBucketName") from None
    try:
        size = len(prefix.encode())
    except ValueError:
        raise refused("InvalidObjectName") from None
    if size > LONGEST_KEY:
        raise refused("KeyTooLongError")


def refused(code: str) -> StoreRefused:
    """The exception for a call that the store refuses with `code`."""
    return StoreRefused(code, f"the object store refuses this call ({code}): {remedy(code)}")


def remedy(code: str) -> str:
    """Why an object cannot be used, and what to do. It names no object: that is text of a user."""
    if code.startswith(("KMS.", "XMinioKMS", "XMinioEncryption")):
        return "the key that encrypts it cannot be used; enable the key in the store, or upload the file again"
    return _REMEDIES.get(code, "the same call would be refused again; look into the store's own log for the reason")


_REMEDIES = {
    "InvalidBucketName": "this is no name of a bucket; use 3 to 63 letters, digits, dots and hyphens",
    "InvalidObjectName": "no object has this key; a key is text that is not empty, without the parts `.` and `..`",
    "XMinioInvalidObjectName": "the store takes no such key; rename the object",
    "InvalidURI": "the store takes no such key; rename the object",
    "KeyTooLongError": f"the key is too long; use at most {LONGEST_KEY:,} bytes, and 255 between two slashes",
    "InvalidObjectState": "the object is archived; restore it, or upload the file again",
    "MethodNotAllowed": "the object is a delete marker or a folder; name a file",
    "EntityTooLarge": "the object is larger than the store takes; split the file",
    "NotImplemented": "the store lacks a function that Tunestream needs, such as conditional writes; use another store",
}


def shown(bucket: str, key: str) -> str:
    """An object's place as an error shows it: shortened, and without what is no text (half a surrogate pair)."""
    place = f"{bucket}/{key}".encode(errors="replace").decode()
    return place if len(place) <= LONGEST_SHOWN else f"{place[:LONGEST_SHOWN]}…"

"""How large the parts of an event or of a job's settings may be. Everything that a stranger sends has a limit here.

The limits are far above real use. They keep one message from filling the memory, the log or the database of all, and
numbers within what every reader of JSON keeps exactly. A text that is only shown to people is cut; anything else that
is too large is an error that names the field.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from shared import strict_json

DOCUMENT_CHARS = 2**26
"""The most characters of any string in any model; a row of a dataset may have 16 MiB."""
ID_CHARS = 256
NAME_CHARS = 1024
"""Of models, which may be paths, and of other names."""
TEXT_CHARS = 16_384
"""Of messages and reasons. What is longer is cut."""
KEY_BYTES = 1024
"""Of an object's key in UTF-8: the limit of S3."""
ITEMS = 10_000
"""Entries of a list or an object in an event."""
MAX_COUNT = 2**53 - 1
"""The largest whole number that every reader of JSON keeps exactly."""
MAX_TOKENS = 2**24
MAX_RERUN = 1_000_000_000
TARGET_MODULES = 256
MODULE_CHARS = 256
DEFAULT_PROJECT = "default"
"""The project of all that names none."""
METADATA_ENTRIES, METADATA_KEY_CHARS, METADATA_VALUE_CHARS = 16, 64, 512
INTEGRATIONS, INTEGRATION_CHARS = 5, 256
"""Those of the OpenAI API."""


def _cut(limit: int) -> BeforeValidator:
    def cut(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        text = value if len(value) <= limit else value[: limit - 1] + "…"
        # half a surrogate pair can come into a message with the name of a user's field; it has no UTF-8
        return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()[:limit]

    return BeforeValidator(cut)


def _finite(value: Any) -> Any:
    try:
        strict_json.check(value)
    except strict_json.InvalidJson as error:
        raise PydanticCustomError("strict_json", "{reason}", {"reason": str(error)}) from None
    return value


def _bucket(name: str) -> str:
    if not _BUCKET.fullmatch(name) or any(pair in name for pair in ("..", ".-", "-.")) or _IP_ADDRESS.fullmatch(name):
        raise PydanticCustomError(
            "bucket_name",
            "This is no name of a bucket: it has 3 to 63 letters, digits, dots and dashes, and begins and ends with a "
            "letter or digit; write the bucket's name alone, without `s3://` and without folders",
        )
    return name


def _key(key: str) -> str:
    if (size := len(key.encode())) > KEY_BYTES:
        raise PydanticCustomError(
            "object_key",
            "An object's key has at most {limit} bytes in UTF-8, this one has {size}; give the object a shorter name",
            {"limit": KEY_BYTES, "size": size},
        )
    if not key.strip():
        raise PydanticCustomError("object_key", "The key is empty; write the object's key, such as `support.jsonl`")
    if any(part in (".", "..") for part in key.split("/")):
        raise PydanticCustomError(
            "object_key", "The key has a folder `.` or `..`, which no client can ask for; write the key without it"
        )
    if _CONTROL.search(key):
        raise PydanticCustomError(
            "object_key", "The key holds a control character; give the object a name without, and write that"
        )
    return key


_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")  # old buckets have upper case and underscores
_IP_ADDRESS = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

Id = Annotated[str, Field(max_length=ID_CHARS)]
JobId = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""It is a folder of the ledger."""
SweepId = Annotated[str, Field(max_length=64, pattern=r"^sweep-[A-Za-z0-9]+$")]
FileId = Annotated[str, Field(max_length=64, pattern=r"^file-[A-Za-z0-9-]+$")]
ProjectId = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""It is a folder of the bucket that datasets are dropped into, `projects/{id}/`."""
KeyId = Annotated[str, Field(pattern=r"^key_[a-z2-7]{24}$", max_length=28)]
Name = Annotated[str, Field(max_length=NAME_CHARS)]
ShownName = Annotated[str, _cut(NAME_CHARS), Field(max_length=NAME_CHARS)]
"""A name that is only shown; what is longer is cut."""
Text = Annotated[str, _cut(TEXT_CHARS), Field(max_length=TEXT_CHARS)]
"""Words for people; what is longer is cut."""
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Limit = Annotated[int, Field(ge=1, le=MAX_COUNT)]
"""How many of something there may be."""
BucketName = Annotated[str, AfterValidator(_bucket), Field(json_schema_extra={"minLength": 3, "maxLength": 63})]
ObjectKey = Annotated[
    str, AfterValidator(_key), Field(json_schema_extra={"minLength": 1, "maxLength": KEY_BYTES, "pattern": r"\S"})
]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{64}$", max_length=64, to_lower=True)]
"""In hex."""
Json = Annotated[Any, AfterValidator(_finite)]
"""Any value that `strict_json` can write and read."""
JsonObject = Annotated[dict[Name, Any], Field(max_length=ITEMS), AfterValidator(_finite)]
"""Such values by name."""

"""Which created objects a bucket notification names.

The format is Amazon's, https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html;
MinIO and Ceph send the same format; MinIO puts `s3:` before the name of the event.
"""

from __future__ import annotations

from urllib.parse import unquote_plus

from pydantic import Field, ValidationError

from shared.events import FrozenModel

CREATED = "ObjectCreated:"  # Put, Post, Copy, CompleteMultipartUpload


class Bucket(FrozenModel):
    name: str


class Object(FrozenModel):
    key: str
    """URL-encoded as in a form, so `+` is a space."""


class Entity(FrozenModel):
    bucket: Bucket
    object: Object


class Record(FrozenModel):
    event_name: str = Field(alias="eventName")
    s3: Entity


class Notification(FrozenModel):
    """A notification, as far as ingest reads it."""

    records: tuple[Record, ...] = Field((), alias="Records")


def created_keys(value: bytes, bucket: str) -> list[str]:
    """The decoded keys of the objects that were created in `bucket`, in order. Other notifications have none.

    Raises:
        ValueError: the value is not a bucket notification.
    """
    try:
        notification = Notification.model_validate_json(value)
    except ValidationError as error:
        raise ValueError(f"not a bucket notification: {error.error_count()} fields are wrong") from None
    return [
        unquote_plus(record.s3.object.key)
        for record in notification.records
        if record.s3.bucket.name == bucket and record.event_name.removeprefix("s3:").startswith(CREATED)
    ]

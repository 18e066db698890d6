"""Listings of the object store, one request at a time: so that a walk through many objects needs little memory, and no
call takes longer than one page does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice

from minio import Minio
from minio.datatypes import Object
from minio.error import S3Error

from shared.stages.ledger import Entry

PAGE = 1000
"""Objects on a page, the most that S3 gives."""
ABORTED_AT_ONCE = 50
"""Uploads that one call aborts, so that it ends within its deadline."""


def entry_of(item: Object) -> Entry:
    return Entry(
        item.object_name or "",
        (item.etag or "").strip('"'),
        item.size or 0,
        item.last_modified.timestamp() if item.last_modified else 0.0,
    )


def page(client: Minio, bucket: str, prefix: str, after: str) -> Sequence[Entry]:
    """The first objects whose key begins with `prefix` and comes behind `after`; empty: there are none."""
    found = client.list_objects(bucket, prefix=prefix, recursive=True, start_after=after or None)
    # no more than a page: the client would ask for the next one
    return [entry_of(item) for item in islice(found, PAGE) if not item.is_dir]


def abort_uploads(client: Minio, bucket: str, before: float) -> int:
    """Abort uploads in parts that were begun before `before` (seconds since the epoch) and are not completed. Returns
    how many, at most `ABORTED_AT_ONCE`."""
    begun = client._list_multipart_uploads(bucket, max_uploads=PAGE).uploads
    limit = datetime.fromtimestamp(before, UTC)
    old = [each for each in begun if each.initiated_time is not None and each.initiated_time < limit][:ABORTED_AT_ONCE]
    for each in old:
        try:
            client._abort_multipart_upload(bucket, each.object_name, each.upload_id)
        except S3Error as error:
            if error.code != "NoSuchUpload":  # completed or aborted meanwhile
                raise
    return len(old)

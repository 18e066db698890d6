"""Objects are compared with their references while they are read, and every connection is released."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import pytest
from minio.error import S3Error

from shared.errors import CorruptObject, InputError
from shared.events import DatasetPointer, Reference
from shared.store.verified import copy, describe

DATA = b'{"messages": []}\n' * 200_000  # more than one chunk
DIGEST = hashlib.sha256(DATA).hexdigest()


class Response(io.BytesIO):
    headers = {"etag": '"e1"'}  # noqa: RUF012
    released = False

    def stream(self, size: int) -> Any:
        while chunk := self.read(size):
            yield chunk

    def release_conn(self) -> None:
        self.released = True


class Client:
    """A `Minio` with one object."""

    def __init__(self) -> None:
        self.response = Response(DATA)

    def get_object(self, bucket: str, key: str) -> Response:
        if key != "there":
            raise S3Error(None, "NoSuchKey", "no such key", key, "r", "h")  # type: ignore[arg-type]
        return self.response


def reference(key: str = "there", sha256: str = DIGEST) -> Reference:
    return Reference(bucket="bucket", key=key, etag="e1", size=len(DATA), sha256=sha256)


def test_what_was_promised_is_copied() -> None:
    client, sink = Client(), io.BytesIO()
    copy(client, reference(), sink)  # type: ignore[arg-type]
    assert sink.getvalue() == DATA
    assert client.response.released and client.response.closed


@pytest.mark.parametrize(("wrong", "says"), [({"key": "gone"}, "is gone"), ({"sha256": "0" * 64}, "damaged")])
def test_an_object_that_is_gone_or_was_changed_is_corrupt(wrong: dict[str, str], says: str) -> None:
    client = Client()
    with pytest.raises(CorruptObject, match=says):
        copy(client, reference(**wrong), io.BytesIO())  # type: ignore[arg-type]


def test_a_pointer_becomes_a_reference() -> None:
    pointer = DatasetPointer(bucket="bucket", key="there", size=len(DATA), etag='"e1"')
    assert describe(Client(), pointer) == reference()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pointer", "code", "param"),
    [
        (DatasetPointer(bucket="bucket", key="gone"), "file_not_found", "training_file"),
        (DatasetPointer(bucket="bucket", key="there", size=1), "file_changed", "dataset.size"),
        (DatasetPointer(bucket="bucket", key="there", sha256="0" * 64), "file_changed", "dataset.sha256"),
    ],
)
def test_a_pointer_to_something_else_is_the_users_error(pointer: DatasetPointer, code: str, param: str) -> None:
    with pytest.raises(InputError) as caught:
        describe(Client(), pointer)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.param) == (code, param)

"""Documents that are looked at again and again: each is read once for as long as it does not change."""

from __future__ import annotations

from shared.store.documents import Documents
from tests.support.fakes.store import FakeStore


def parse(key: str, data: bytes) -> str | None:
    return None if data == b"broken" else f"{key}={data.decode()}"


async def test_only_what_has_changed_is_read_again() -> None:
    store = FakeStore()
    etag = await store.create("notes/a", b"1")
    await store.create("notes/b", b"broken")
    await store.create("other/c", b"3")
    documents = Documents(store, "notes/", parse)
    assert await documents.look() == {"notes/a": "notes/a=1", "notes/b": None}
    before = len(store.calls)
    assert await documents.look() == {"notes/a": "notes/a=1", "notes/b": None}
    assert [call[0] for call in store.calls[before:]] == ["list"]
    await store.replace("notes/a", b"2", etag)
    await store.delete("notes/b")
    before = len(store.calls)
    assert await documents.look() == {"notes/a": "notes/a=2"}
    assert [call[0] for call in store.calls[before:]] == ["list", "get"]

"""The Uploads API as the official client sees it, on a real socket."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from services.api.resources.uploads.documents import part_content_key, parts_prefix, upload_key
from services.api.resources.uploads.domain import LARGEST_PART, LARGEST_UPLOAD
from shared.events import Tombstone
from shared.stages.ledger import file_prefix, tombstone_key
from tests.support.fakes.servers import Server
from tests.unit.api.conftest import KEY, Api, error_of

ROWS = b'{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n'
DATA = ROWS * 3000
PIECES = [DATA[start : start + 50_000] for start in range(0, len(DATA), 50_000)]


async def begin(client: AsyncOpenAI, size: int = len(DATA), **more: Any) -> str:
    about = {"filename": "rows.jsonl", "mime_type": "application/jsonl", "purpose": "fine-tune", **more}
    return (await client.uploads.create(bytes=size, **about)).id


async def add_all(client: AsyncOpenAI, upload: str, pieces: list[bytes]) -> list[str]:
    """Send the pieces in parallel, in any order. Returns the ids of their parts, in the order of the pieces."""
    order = random.sample(range(len(pieces)), len(pieces))
    parts = await asyncio.gather(*(client.uploads.parts.create(upload, data=pieces[number]) for number in order))
    found = {number: part.id for number, part in zip(order, parts, strict=True)}
    return [found[number] for number in range(len(pieces))]


async def test_parts_that_come_in_any_order_become_the_file(api: Api, client: AsyncOpenAI) -> None:
    upload = await client.uploads.create(
        bytes=len(DATA), filename="rows.jsonl", mime_type="application/jsonl", purpose="fine-tune"
    )
    assert upload.id.startswith("upload_") and (upload.object, upload.status) == ("upload", "pending")
    assert (upload.bytes, upload.filename, upload.purpose) == (len(DATA), "rows.jsonl", "fine-tune")
    assert upload.expires_at == upload.created_at + 3600 and upload.file is None
    part_ids = await add_all(client, upload.id, PIECES)
    done = await client.uploads.complete(upload.id, part_ids=part_ids, md5=hashlib.md5(DATA).hexdigest())
    assert done.status == "completed" and done.file is not None
    assert (done.file.filename, done.file.bytes, done.file.purpose) == ("rows.jsonl", len(DATA), "fine-tune")
    assert (await client.files.content(done.file.id)).read() == DATA
    assert [file async for file in client.files.list()] == [done.file]
    stone = Tombstone.model_validate_json(api.objects.held[tombstone_key("uploads", upload.id)].data)
    assert stone.prefix == parts_prefix(upload.id)


async def test_the_helper_of_the_official_client_uploads_bytes_and_files(server: Server, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(DATA)

    def session() -> None:
        with OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
            for about in (
                {"file": tmp_path / "rows.jsonl"},
                {"file": DATA, "filename": "rows.jsonl", "bytes": len(DATA)},
            ):
                done = client.uploads.upload_file_chunked(
                    mime_type="application/jsonl", purpose="fine-tune", part_size=70_000, **about
                )
                assert done.file is not None and client.files.content(done.file.id).read() == DATA

    await asyncio.to_thread(session)


async def test_a_part_has_an_object_of_its_own(client: AsyncOpenAI) -> None:
    upload = await begin(client)
    part = await client.uploads.parts.create(upload, data=b"x")
    assert part.id.startswith("part_") and part.object == "upload.part" and part.upload_id == upload
    assert part.created_at > 0


async def test_the_file_lives_as_long_as_the_upload_said(api: Api, client: AsyncOpenAI) -> None:
    upload = await begin(client, 2, purpose="batch", expires_after={"anchor": "created_at", "seconds": 7200})
    part = await client.uploads.parts.create(upload, data=b"{}")
    api.clock.now += 60
    done = await client.uploads.complete(upload, part_ids=[part.id])
    assert done.file is not None and done.file.expires_at == done.file.created_at + 7200
    api.clock.now += 7200
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(done.file.id)


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"bytes": 0}, "bytes"),
        ({"bytes": -1}, "bytes"),
        ({"bytes": LARGEST_UPLOAD + 1}, "bytes"),
        ({"bytes": 10**30}, "bytes"),
        ({"filename": ""}, "filename"),
        ({"filename": "x" * 1025}, "filename"),
        ({"purpose": "answers"}, "purpose"),
        ({"expires_after": {"anchor": "now", "seconds": 3600}}, "expires_after.anchor"),
        ({"expires_after": {"anchor": "created_at", "seconds": 60}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "created_at", "seconds": 3600.5}}, "expires_after.seconds"),
    ],
)
async def test_an_upload_that_can_be_no_file(api: Api, wrong: dict[str, Any], param: str) -> None:
    about = {"bytes": 10, "filename": "a", "mime_type": "text/plain", "purpose": "batch"}
    answer = await api.client.post("/v1/uploads", json=about | wrong)
    assert answer.status_code in (400, 413)
    assert error_of(answer)["param"] == param
    assert [key for key in api.objects.held if key.startswith("uploads/")] == []


async def test_a_body_without_a_field(api: Api) -> None:
    for body in ({}, {"bytes": 1}, [], None):
        answer = await api.client.post("/v1/uploads", json=body)
        assert answer.status_code == 400
        error_of(answer)


async def test_parts_that_are_not_all_of_the_file(api: Api, client: AsyncOpenAI) -> None:
    upload = await begin(client)
    part_ids = await add_all(client, upload, PIECES)
    other = await begin(client)
    stranger = (await client.uploads.parts.create(other, data=b"x")).id
    for wrong, words in (
        ([], "'part_ids' is empty"),
        (part_ids[:-1], "upload was created with 279,000 bytes"),
        ([*part_ids, part_ids[0]], "more than once"),
        ([*part_ids[:-1], "part_nothing"], "No such part: 'part_nothing'"),
        ([*part_ids[:-1], "../" * 8], "No such part"),
        ([*part_ids[:-1], stranger], f"No such part: '{stranger}'"),
        ([*part_ids[:-1], "part_" + "a" * 24], "No such part"),
    ):
        with pytest.raises(openai.BadRequestError, match=words) as caught:
            await client.uploads.complete(upload, part_ids=wrong)
        assert str(caught.value.param).startswith("part_ids")
    with pytest.raises(openai.BadRequestError, match="md5") as caught:
        await client.uploads.complete(upload, part_ids=part_ids, md5="0" * 32)
    assert caught.value.param == "md5"
    with pytest.raises(openai.BadRequestError, match="md5"):
        await client.uploads.complete(upload, part_ids=part_ids[::-1], md5=hashlib.md5(DATA).hexdigest())
    assert [file async for file in client.files.list()] == []
    assert not any(key.startswith("files/") for key in api.objects.held)
    done = await client.uploads.complete(upload, part_ids=part_ids, md5=hashlib.md5(DATA).hexdigest().upper())
    assert done.file is not None, "what was wrong can be put right"


async def test_an_upload_whose_bytes_are_no_dataset(client: AsyncOpenAI) -> None:
    upload = await begin(client, 6)
    part = await client.uploads.parts.create(upload, data=b"a,b,c\n")
    with pytest.raises(openai.BadRequestError, match="must be JSONL"):
        await client.uploads.complete(upload, part_ids=[part.id])


async def test_a_part_that_is_too_large_or_no_form(api: Api, client: AsyncOpenAI) -> None:
    upload = await begin(client)

    async def huge() -> AsyncIterator[bytes]:
        yield b'--xx\r\nContent-Disposition: form-data; name="data"; filename="x"\r\n\r\n'
        for _ in range(LARGEST_PART // 2**20 + 3):
            yield bytes(2**20)

    headers = {"content-type": "multipart/form-data; boundary=xx"}
    answer = await api.client.post(f"/v1/uploads/{upload}/parts", content=huge(), headers=headers)
    assert answer.status_code == 413
    declared = {**headers, "content-length": str(LARGEST_PART + 2**21)}
    answer = await api.client.post(f"/v1/uploads/{upload}/parts", content=b"", headers=declared)
    assert answer.status_code == 413
    for body in ({"json": {}}, {"files": {"file": b"x"}}, {"content": b""}):
        answer = await api.client.post(f"/v1/uploads/{upload}/parts", **body)  # type: ignore[arg-type]
        assert answer.status_code == 400
        error_of(answer)
    answer = await api.client.post("/v1/uploads", content=b" " * 2**21, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert [key for key in api.objects.held if key.startswith(parts_prefix(upload))] == []


async def test_the_largest_part_is_taken(api: Api, client: AsyncOpenAI) -> None:
    api.largest_file = LARGEST_PART
    await api.restart()
    data = b"{" + bytes(LARGEST_PART - 1)
    made = await api.client.post(
        "/v1/uploads", json={"bytes": len(data), "filename": "a", "mime_type": "x", "purpose": "batch"}
    )
    upload = made.json()["id"]
    answer = await api.client.post(f"/v1/uploads/{upload}/parts", files={"data": data})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("upload_id", ["upload_nothing", "upload_" + "a" * 24, "x", "..", "%00", "upload_..%2f.."])
async def test_an_upload_that_does_not_exist(api: Api, upload_id: str) -> None:
    for path, body in (
        ("parts", {"files": {"data": b"x"}}),
        ("complete", {"json": {"part_ids": ["part_" + "a" * 24]}}),
        ("cancel", {}),
    ):
        answer = await api.client.post(f"/v1/uploads/{upload_id}/{path}", **body)  # type: ignore[arg-type]
        assert answer.status_code == 404
        error_of(answer)


async def test_an_upload_of_another_project_does_not_exist(api: Api, client: AsyncOpenAI) -> None:
    upload = await begin(client)
    part = await client.uploads.parts.create(upload, data=DATA)
    elsewhere = {"openai-project": "elsewhere"}
    for path, body in (
        ("parts", {"files": {"data": b"x"}}),
        ("complete", {"json": {"part_ids": [part.id]}}),
        ("cancel", {}),
    ):
        answer = await api.client.post(f"/v1/uploads/{upload}/{path}", headers=elsewhere, **body)  # type: ignore[arg-type]
        assert answer.status_code == 404, path
    done = await client.uploads.complete(upload, part_ids=[part.id])
    assert done.status == "completed"


# --- one end ------------------------------------------------------------------------------------------------------


async def test_completing_again_or_at_once_gives_the_same_file(api: Api, client: AsyncOpenAI) -> None:
    upload = await begin(client)
    part_ids = await add_all(client, upload, PIECES)
    results = await asyncio.gather(*(client.uploads.complete(upload, part_ids=part_ids) for _ in range(5)))
    again = await client.uploads.complete(upload, part_ids=part_ids)
    files = {done.file.id for done in [*results, again] if done.file}
    assert len(files) == 1 and all(done.status == "completed" for done in [*results, again])
    assert [file.id async for file in client.files.list()] == [*files]
    for key in [key for key in api.objects.held if key.startswith(parts_prefix(upload))]:
        del api.objects.held[key]  # as the janitor does
    again = await client.uploads.complete(upload, part_ids=part_ids)
    assert again.file is not None and again.file.id in files
    for call in (
        client.uploads.parts.create(upload, data=b"x"),
        client.uploads.cancel(upload),
        client.uploads.complete(upload, part_ids=part_ids[::-1]),
    ):
        with pytest.raises(openai.BadRequestError, match="already completed"):
            await call


async def test_the_file_of_an_upload_that_was_deleted_does_not_come_back(api: Api, client: AsyncOpenAI) -> None:
    upload = await begin(client)
    part = await client.uploads.parts.create(upload, data=DATA)
    done = await client.uploads.complete(upload, part_ids=[part.id])
    assert done.file is not None
    await client.files.delete(done.file.id)
    again = await client.uploads.complete(upload, part_ids=[part.id])
    assert (again.status, again.file) == ("completed", None)
    for key in [key for key in api.objects.held if key.startswith((file_prefix(done.file.id), "deleted/files/"))]:
        del api.objects.held[key]  # as the janitor does
    again = await client.uploads.complete(upload, part_ids=[part.id])
    assert (again.status, again.file) == ("completed", None)
    assert [file async for file in client.files.list()] == []


async def test_a_cancelled_upload_takes_nothing_more(client: AsyncOpenAI) -> None:
    upload = await begin(client)
    part = await client.uploads.parts.create(upload, data=DATA)
    for _ in range(2):
        assert (await client.uploads.cancel(upload)).status == "cancelled"
    for call in (
        client.uploads.parts.create(upload, data=b"x"),
        client.uploads.complete(upload, part_ids=[part.id]),
    ):
        with pytest.raises(openai.BadRequestError, match="already cancelled"):
            await call
    assert [file async for file in client.files.list()] == []


async def test_of_complete_and_cancel_one_wins(client: AsyncOpenAI) -> None:
    for number in range(20):
        upload = await begin(client)
        part_ids = await add_all(client, upload, PIECES)
        calls = [client.uploads.complete(upload, part_ids=part_ids), client.uploads.cancel(upload)]
        if number % 2:
            calls.reverse()
        done = await asyncio.gather(*calls, return_exceptions=True)
        ended = [each.status for each in done if not isinstance(each, BaseException)]
        lost = [each for each in done if isinstance(each, BaseException)]
        assert len(ended) == 1 and isinstance(lost[0], openai.BadRequestError), done
        files = [file async for file in client.files.list()]
        assert len(files) == (ended == ["completed"])
        for file in files:
            await client.files.delete(file.id)


async def test_an_upload_that_has_expired(api: Api, client: AsyncOpenAI) -> None:
    upload = await begin(client)
    part = await client.uploads.parts.create(upload, data=DATA)
    api.clock.now += 3600
    for call in (
        client.uploads.parts.create(upload, data=b"x"),
        client.uploads.complete(upload, part_ids=[part.id]),
        client.uploads.cancel(upload),
    ):
        with pytest.raises(openai.BadRequestError, match="expired"):
            await call
    assert upload_key(upload) in api.objects.held


async def test_a_part_that_was_damaged_becomes_no_file(api: Api, client: AsyncOpenAI) -> None:
    upload = await begin(client)
    part = await client.uploads.parts.create(upload, data=DATA)
    api.objects.add(part_content_key(upload, part.id), DATA[::-1])
    with pytest.raises(openai.InternalServerError):
        await client.uploads.complete(upload, part_ids=[part.id])
    assert [file async for file in client.files.list()] == []


async def test_wherever_the_process_dies_completing_again_gives_the_file(api: Api, client: AsyncOpenAI) -> None:
    """Each call to the store fails once, before and after it had its effect."""
    for dies_at, when in itertools.product(range(40), ("before", "after")):
        upload = await begin(client)
        part_ids = await add_all(client, upload, [DATA[:100_000], DATA[100_000:]])
        left = dies_at

        async def dying(operation: str, key: str) -> None:
            nonlocal left
            left -= 1
            if left == -1:
                raise RuntimeError("killed")

        whole = getattr(api.objects, when)
        setattr(api.objects, when, dying)
        try:
            await client.uploads.complete(upload, part_ids=part_ids)
            died = left < 0
        except openai.InternalServerError:
            died = True
        setattr(api.objects, when, whole)
        done = await client.uploads.complete(upload, part_ids=part_ids)
        assert done.file is not None
        assert (await client.files.content(done.file.id)).read() == DATA
        assert [file.id async for file in client.files.list()] == [done.file.id]
        await client.files.delete(done.file.id)
        if not died and when == "after":
            break
    assert not died, "every call was tried"

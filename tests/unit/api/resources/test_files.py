"""The Files API as the official client sees it, on a real socket."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from services.api.resources.files.domain import result_file_id
from shared import ids
from shared.events import StoredFile
from shared.stages.ledger import file_content_key, file_meta_key, tombstone_key
from tests.support.data.job_history import JobHistory
from tests.support.fakes.servers import Server
from tests.unit.api.conftest import KEY, Api, error_of

ROWS = b'{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n' * 12


async def replica(api: Api, folder: Path) -> Api:
    """Another process over the same store."""
    other = Api(folder / "other" / "api.sqlite3", api.objects, api.bus, api.clock)
    other.start()
    return other


def form(*parts: tuple[str, str | None, bytes], boundary: str = "xx", end: bool = True) -> dict[str, Any]:
    """A request with a form whose parts are names, file names and bytes, in this order."""
    body = b""
    for name, filename, data in parts:
        about = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename is not None else "")
        body += f"--{boundary}\r\nContent-Disposition: {about}\r\n\r\n".encode() + data + b"\r\n"
    body += f"--{boundary}--\r\n".encode() if end else b""
    return {"content": body, "headers": {"content-type": f"multipart/form-data; boundary={boundary}"}}


# --- create, retrieve, content, delete ----------------------------------------------------------------------------


async def test_a_file_is_created_read_and_deleted(client: AsyncOpenAI, tmp_path: Path) -> None:
    (tmp_path / "tone.jsonl").write_bytes(ROWS)
    made = await client.files.create(file=tmp_path / "tone.jsonl", purpose="fine-tune")
    assert made.id.startswith("file-") and made.object == "file" and made.status == "processed"
    assert (made.filename, made.purpose, made.bytes, made.expires_at) == ("tone.jsonl", "fine-tune", len(ROWS), None)
    assert await client.files.retrieve(made.id) == made
    assert (await client.files.wait_for_processing(made.id)) == made
    content = await client.files.content(made.id)
    assert content.content == ROWS and content.response.headers["content-length"] == str(len(ROWS))
    assert content.response.headers["content-disposition"] == "attachment; filename*=UTF-8''tone.jsonl"
    assert [file.id async for file in client.files.list()] == [made.id]
    gone = await client.files.delete(made.id)
    assert (gone.id, gone.object, gone.deleted) == (made.id, "file", True)
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match=f"No such File object: {made.id}"):
            await call(made.id)
    assert [file.id async for file in client.files.list()] == []


async def test_the_synchronous_client_does_the_same(server: Server) -> None:
    def session() -> None:
        with OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
            made = client.files.create(file=("tone.jsonl", io.BytesIO(ROWS)), purpose="fine-tune")
            assert client.files.content(made.id).read() == ROWS
            assert [file.id for file in client.files.list(purpose="fine-tune")] == [made.id]
            assert client.files.delete(made.id).deleted

    await asyncio.to_thread(session)


@pytest.mark.parametrize("purpose", ["assistants", "batch", "fine-tune", "vision", "user_data", "evals"])
async def test_bytes_without_a_name_are_a_file_for_every_purpose(client: AsyncOpenAI, purpose: Any) -> None:
    made = await client.files.create(file=ROWS, purpose=purpose)
    assert (made.filename, made.purpose) == ("upload", purpose)
    assert [file.id async for file in client.files.list(purpose=purpose)] == [made.id]
    assert [file.id async for file in client.files.list(purpose="other")] == []


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("日本 語.jsonl", "日本 語.jsonl"), ("C:\\data\\a.jsonl", "a.jsonl"), ("/etc/a.jsonl", "a.jsonl"), ("", "upload")],
)
async def test_a_name_may_have_letters_of_every_script_and_no_path(api: Api, sent: str, kept: str) -> None:
    answer = await api.client.post("/v1/files", **form(("file", sent, ROWS), ("purpose", None, b"fine-tune")))
    assert answer.json()["filename"] == kept
    content = await api.client.get(f"/v1/files/{answer.json()['id']}/content")
    assert content.headers["content-disposition"].isascii() and content.content == ROWS


async def test_the_fields_of_a_form_come_in_any_order(api: Api) -> None:
    parts = [
        ("file", "a.jsonl", ROWS),
        ("purpose", None, b"fine-tune"),
        ("expires_after[anchor]", None, b"created_at"),
        ("expires_after[seconds]", None, b"3600"),
        ("other", None, b"ignored"),
    ]
    for order in itertools.permutations(parts):
        answer = await api.client.post("/v1/files", **form(*order))
        assert answer.status_code == 200, answer.text
        file = answer.json()
        assert file["expires_at"] - file["created_at"] == 3600
        assert (await api.client.get(f"/v1/files/{file['id']}/content")).content == ROWS


async def test_bytes_that_look_like_a_boundary_stay_as_they_are(api: Api) -> None:
    data = b"{}\r\n--x\r\n--xxx\r\n-\r\n--\r\n\r\n--xy" + bytes(range(256)) * 700 + b"\r\n--x"
    for boundary in ("x" * 8, "xyz-xyz"):
        body = form(("purpose", None, b"user_data"), ("file", "a", data), boundary=boundary)
        whole: bytes = body["content"]
        for length in (1000, 7919):

            async def pieces(whole: bytes = whole, length: int = length) -> AsyncIterator[bytes]:
                for start in range(0, len(whole), length):
                    yield whole[start : start + length]

            answer = await api.client.post("/v1/files", content=pieces(), headers=body["headers"])
            assert answer.status_code == 200, answer.text
            assert (await api.client.get(f"/v1/files/{answer.json()['id']}/content")).content == data


# --- what is refused ----------------------------------------------------------------------------------------------

PURPOSE = ("purpose", None, b"fine-tune")
FILE = ("file", "a.jsonl", ROWS)


@pytest.mark.parametrize(
    ("parts", "param", "words"),
    [
        ([FILE], "purpose", "Missing required parameter: 'purpose'"),
        ([PURPOSE], "file", "Missing required parameter: 'file'"),
        ([FILE, ("purpose", None, b"answers")], "purpose", "'answers' is not one of ['assistants', 'batch'"),
        ([("purpose", None, b"fine-tune-results"), FILE], "purpose", "is not one of"),
        ([PURPOSE, FILE, FILE], "file", "more than one part 'file'"),
        ([PURPOSE, ("file", "a", b"")], "file", "File is empty."),
        ([("file", "a", b""), ("purpose", None, b"batch")], "file", "File is empty."),
        ([PURPOSE, ("file", "a", b" \n\n")], "file", "File is empty."),
        ([PURPOSE, ("file", "a.jsonl", b"\x1f\x8b123")], "file", "gzip archive; unpack it"),
        ([PURPOSE, ("file", "a.jsonl", b"BZh91AY")], "file", "bzip2 archive; unpack it"),
        ([PURPOSE, ("file", "a.jsonl", b"\xff\xfe{\0")], "file", "save the file as UTF-8"),
        ([PURPOSE, ("file", "a.jsonl", b"{\0}")], "file", "binary"),
        ([PURPOSE, ("file", "a.csv", b"prompt,completion\n")], "file", "must be JSONL"),
        ([PURPOSE, ("file", "a.jsonl", b'[{"messages": []}]')], "file", "does not begin with '{'"),
        ([PURPOSE, FILE, ("expires_after[anchor]", None, b"created_at")], "expires_after.seconds", "3600 to 2592000"),
        ([PURPOSE, FILE, ("expires_after[seconds]", None, b"3600")], "expires_after.anchor", "'created_at'"),
        ([PURPOSE, ("file", "n" * 1025, ROWS)], "file", "at most 1,024"),
        ([("purpose", None, b"p" * 5000), FILE], "purpose", "longer than 4096 bytes"),
    ],
)
async def test_a_form_that_is_wrong_names_the_field_and_leaves_nothing(
    api: Api, parts: list[tuple[str, str | None, bytes]], param: str, words: str
) -> None:
    answer = await api.client.post("/v1/files", **form(*parts))
    error = error_of(answer)
    assert (answer.status_code, error["param"]) == (400, param)
    assert words in error["message"]
    assert [key for key in api.objects.held if key.startswith("files/")] == []


@pytest.mark.parametrize("seconds", [b"3599", b"2592001", b"-1", b"1e4", b"", b"9" * 400, "٣٦٠٠".encode()])
async def test_a_life_of_less_than_an_hour_or_more_than_thirty_days(api: Api, seconds: bytes) -> None:
    parts = [PURPOSE, FILE, ("expires_after[anchor]", None, b"created_at"), ("expires_after[seconds]", None, seconds)]
    answer = await api.client.post("/v1/files", **form(*parts))
    assert (answer.status_code, error_of(answer)["param"]) == (400, "expires_after.seconds")


@pytest.mark.parametrize(
    "request_",
    [
        {"json": {"file": "x"}},
        {"content": b"x"},
        {"content": b"", "headers": {"content-type": "multipart/form-data"}},
        {"content": b"junk", "headers": {"content-type": "multipart/form-data; boundary=xx"}},
        {"content": b"", "headers": {"content-type": "multipart/form-data; boundary=xx"}},
        {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=" + "x" * 5000}},
        form(PURPOSE, FILE, end=False),
        form(PURPOSE, *[("other", None, b"")] * 100, FILE),
    ],
)
async def test_a_body_that_is_no_form_is_refused(api: Api, request_: dict[str, Any]) -> None:
    answer = await api.client.post("/v1/files", **request_)
    assert answer.status_code == 400, answer.text
    error_of(answer)
    assert [key for key in api.objects.held if key.startswith("files/")] == []


async def test_a_file_that_is_too_large_is_refused_whether_or_not_it_says_so(api: Api) -> None:
    body = form(PURPOSE, ("file", "a", b"{" + b" " * api.largest_file))
    declared = await api.client.post("/v1/files", **body)
    assert (declared.status_code, error_of(declared)["code"]) == (413, "file_too_large")
    large = await api.client.post("/v1/files", **form(PURPOSE, ("file", "a", b" " * (api.largest_file + 2**21))))
    assert (large.status_code, error_of(large)["code"]) == (413, "body_too_large")

    async def pieces() -> AsyncIterator[bytes]:
        whole: bytes = body["content"]
        for start in range(0, len(whole), 2**16):
            yield whole[start : start + 2**16]

    undeclared = await api.client.post("/v1/files", content=pieces(), headers=body["headers"])
    assert undeclared.status_code == 413
    assert [key for key in api.objects.held if key.startswith("files/")] == []
    fits = await api.client.post("/v1/files", **form(PURPOSE, ("file", "a", b"{" + b" " * (api.largest_file - 1))))
    assert fits.status_code == 200


async def test_a_client_that_goes_away_leaves_nothing(api: Api, server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    body: bytes = form(PURPOSE, ("file", "a", b"{" + b" " * 2**20))["content"]
    head = f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n"
    writer.write(head.encode() + b"content-type: multipart/form-data; boundary=xx\r\n\r\n" + body[: 2**19])
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with httpx.AsyncClient(base_url=server.url, headers={"authorization": f"Bearer {KEY}"}) as other:
        assert (await other.post("/v1/files", **form(PURPOSE, FILE))).status_code == 200
    assert len([key for key in api.objects.held if key.startswith("files/")]) == 2


@pytest.mark.parametrize(
    "file_id",
    ["file-nothing", "x", "file-..", "file-result-nothing", "file-" + "a" * 100, "file-result-..%2f..", "%00"],
)
async def test_an_id_that_no_file_has(api: Api, file_id: str) -> None:
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        answer = await api.client.request(method, f"/v1/files/{file_id}{path}")
        assert answer.status_code == 404
        error_of(answer)


# --- lists --------------------------------------------------------------------------------------------------------


async def add(api: Api, number: int, **fields: Any) -> str:
    """A file that another replica has stored."""
    file_id = f"file-{ids.derive('test', number)}"
    content = api.objects.add(file_content_key(file_id), ROWS)
    file = StoredFile.model_validate(
        {
            "file_id": file_id,
            "filename": f"{number}.jsonl",
            "purpose": "fine-tune",
            "created_at": api.clock.now + number // 2,
            "content": content,
            **fields,
        }
    )
    api.objects.add(file_meta_key(file_id), file.model_dump_json().encode())
    return file_id


async def test_pages_reach_the_end_in_both_orders_and_show_every_file_once(api: Api, client: AsyncOpenAI) -> None:
    made = [await add(api, number) for number in range(23)]
    for order, limit in itertools.product(("asc", "desc"), (1, 7, 23, 10_000)):
        found = [file async for file in client.files.list(order=order, limit=limit)]  # type: ignore[arg-type]
        assert sorted(file.id for file in found) == sorted(made)
        ages = [file.created_at for file in found]
        assert ages == sorted(ages, reverse=order == "desc")
    page = await api.get("/v1/files", limit=2)
    assert (page["object"], page["has_more"]) == ("list", True)
    assert [page["first_id"], page["last_id"]] == [file["id"] for file in page["data"]]


async def test_a_client_may_delete_what_it_lists(api: Api, client: AsyncOpenAI) -> None:
    for number in range(9):
        await add(api, number)
    async for file in client.files.list(limit=2):
        await client.files.delete(file.id)
        api.objects.held.pop(file_meta_key(file.id))  # as the janitor does
        api.objects.held.pop(tombstone_key("files", file.id))
    assert [file.id async for file in client.files.list()] == []


async def test_files_that_come_while_pages_are_read_hide_none(api: Api, client: AsyncOpenAI) -> None:
    before = {await add(api, number) for number in range(10)}
    seen = list[str]()
    page = await client.files.list(limit=3)
    while page.data:
        seen += [file.id for file in page.data]
        api.clock.now += 10
        await client.files.create(file=ROWS, purpose="batch")
        page = await client.files.list(limit=3, after=page.data[-1].id)
    assert set(seen) >= before and len(seen) == len(set(seen))


@pytest.mark.parametrize(("param", "value"), [("limit", 0), ("limit", 10_001), ("order", "x")])
async def test_a_list_with_a_wrong_parameter(api: Api, param: str, value: Any) -> None:
    answer = await api.client.get("/v1/files", params={param: value})
    assert answer.status_code == 400 and error_of(answer)["param"] == param


async def test_a_list_behind_something_that_is_no_file(api: Api) -> None:
    answer = await api.client.get("/v1/files", params={"after": "file-nothing"})
    assert (answer.status_code, error_of(answer)["param"]) == (404, "after")


async def test_ten_thousand_files_are_one_list_and_read_once(api: Api) -> None:
    for number in range(10_000):
        await add(api, number)
    assert len((await api.get("/v1/files"))["data"]) == 10_000
    api.objects.calls.clear()
    page = await api.get("/v1/files")
    assert len(page["data"]) == 10_000 and not page["has_more"]
    assert len(api.objects.calls) == 2, "nothing that is known is read again"


async def test_without_the_store_what_is_known_is_listed(api: Api) -> None:
    made = await add(api, 1)
    assert [file["id"] for file in (await api.get("/v1/files"))["data"]] == [made]
    api.objects.available = False
    assert [file["id"] for file in (await api.get("/v1/files"))["data"]] == [made]
    for answer in (
        await api.client.get(f"/v1/files/{made}"),
        await api.client.get(f"/v1/files/{made}/content"),
        await api.client.delete(f"/v1/files/{made}"),
        await api.client.post("/v1/files", **form(PURPOSE, FILE)),
    ):
        assert answer.status_code == 503 and "retry-after" in answer.headers


async def test_a_document_that_cannot_be_read_hides_no_other_file(api: Api) -> None:
    made, broken = await add(api, 1), await add(api, 2)
    api.objects.add(file_meta_key(broken), b"{")
    assert [file["id"] for file in (await api.get("/v1/files"))["data"]] == [made]
    assert (await api.client.get(f"/v1/files/{broken}")).status_code == 404


async def test_content_that_was_changed_is_not_passed_on(api: Api) -> None:
    made = await add(api, 1)
    api.objects.add(file_content_key(made), b"something else")
    answer = await api.client.get(f"/v1/files/{made}/content")
    assert (answer.status_code, error_of(answer)["code"]) == (502, "corrupt_object")


# --- replicas, projects, time -------------------------------------------------------------------------------------


async def test_a_file_that_one_replica_deletes_is_gone_on_the_other_at_once(api: Api, tmp_path: Path) -> None:
    other = await replica(api, tmp_path)
    try:
        made = (await api.client.post("/v1/files", **form(PURPOSE, FILE))).json()
        assert [file["id"] for file in (await other.get("/v1/files"))["data"]] == [made["id"]]
        assert await other.get(f"/v1/files/{made['id']}") == made
        assert (await api.client.delete(f"/v1/files/{made['id']}")).status_code == 200
        assert (await other.get("/v1/files"))["data"] == []
        for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
            assert (await other.client.request(method, f"/v1/files/{made['id']}{path}")).status_code == 404
    finally:
        await other.stop()


async def test_of_two_who_delete_one_gets_the_answer(api: Api) -> None:
    made = await add(api, 1)
    answers = await asyncio.gather(*(api.client.delete(f"/v1/files/{made}") for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 404, 404, 404, 404]


async def test_deleting_again_is_no_error_for_a_client_that_lost_the_answer(api: Api, training_job: JobHistory) -> None:
    made = await add(api, 1)
    await training_job.write_documents(api.objects, until="trainer")
    await api.take(training_job.events)
    again = {"x-stainless-retry-count": "1"}
    for file_id in (made, result_file_id(training_job.job_id)):
        path = f"/v1/files/{file_id}"
        assert (await api.client.delete(path)).status_code == 200
        answer = await api.client.delete(path, headers=again)
        assert (answer.status_code, answer.json()) == (200, {"id": file_id, "object": "file", "deleted": True})
        assert (await api.client.get(path, headers=again)).status_code == 404
        assert (await api.client.delete(path, headers=again | {"openai-project": "elsewhere"})).status_code == 404
    assert (await api.client.delete("/v1/files/file-nowhere", headers=again)).status_code == 404


async def test_a_file_ends_with_its_time(api: Api, client: AsyncOpenAI) -> None:
    made = await client.files.create(
        file=ROWS, purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert made.expires_at == made.created_at + 3600
    api.clock.now += 3599
    assert [file.id async for file in client.files.list()] == [made.id]
    api.clock.now += 1
    assert [file.id async for file in client.files.list()] == []
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            await call(made.id)


async def test_another_project_does_not_see_a_file(api: Api, history: JobHistory) -> None:
    made = await add(api, 1)
    elsewhere = {"openai-project": "elsewhere"}
    for file_id in (made, result_file_id(history.job_id)):
        for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
            answer = await api.client.request(method, f"/v1/files/{file_id}{path}", headers=elsewhere)
            nothing = await api.client.request(method, f"/v1/files/file-nothing{path}", headers=elsewhere)
            assert answer.status_code == 404
            assert answer.json()["error"]["message"].replace(file_id, "") == nothing.json()["error"]["message"].replace(
                "file-nothing", ""
            )
    assert (await api.client.get("/v1/files", headers=elsewhere)).json()["data"] == []
    answer = await api.client.get("/v1/files", params={"after": made}, headers=elsewhere)
    assert answer.status_code == 404
    mine = await api.client.post("/v1/files", **(form(PURPOSE, FILE) | {"headers": {**form()["headers"], **elsewhere}}))
    assert [file["id"] for file in (await api.get("/v1/files", purpose="fine-tune"))["data"]] == [made]
    listed = (await api.client.get("/v1/files", headers=elsewhere)).json()["data"]
    assert [file["id"] for file in listed] == [mine.json()["id"]]


# --- result files -------------------------------------------------------------------------------------------------


async def test_the_result_file_of_a_job_is_a_file(api: Api, client: AsyncOpenAI, history: JobHistory) -> None:
    file_id = result_file_id(history.job_id)
    assert file_id == f"file-result-{history.job_id.removeprefix('ftjob-')}"
    file = await client.files.retrieve(file_id)
    assert (file.purpose, file.filename) == ("fine-tune-results", f"{history.job_id}-results.csv")
    assert [each async for each in client.files.list()] == [file]
    assert [each async for each in client.files.list(purpose="fine-tune-results")] == [file]
    assert [each async for each in client.files.list(purpose="fine-tune")] == []
    plain = (await client.files.content(file_id)).read()
    assert plain == b"results.csv of trainer" and file.bytes == len(plain)
    encoded = await api.client.get(f"/v1/files/{file_id}/content?encoding=base64")
    assert base64.b64decode(encoded.content) == plain
    assert encoded.headers["content-length"] == str(len(encoded.content))


async def test_a_job_that_is_not_trained_has_no_result_file(api: Api, training_job: JobHistory) -> None:
    assert (await api.client.get(f"/v1/files/{result_file_id(training_job.job_id)}")).status_code == 404
    assert (await api.get("/v1/files"))["data"] == []


async def test_a_result_file_appears_when_the_training_ends_and_goes_when_it_is_deleted(
    api: Api, training_job: JobHistory, tmp_path: Path
) -> None:
    assert (await api.get("/v1/files"))["data"] == []
    await training_job.write_documents(api.objects, until="trainer")
    await api.take(training_job.events)
    file_id = result_file_id(training_job.job_id)
    assert [file["id"] for file in (await api.get("/v1/files"))["data"]] == [file_id]
    other = await replica(api, tmp_path)
    try:
        await other.take(training_job.events)
        assert [file["id"] for file in (await other.get("/v1/files"))["data"]] == [file_id]
        assert (await api.client.delete(f"/v1/files/{file_id}")).status_code == 200
        for each in (api, other):
            assert (await each.get("/v1/files"))["data"] == []
            assert (await each.client.get(f"/v1/files/{file_id}")).status_code == 404
            assert (await each.client.delete(f"/v1/files/{file_id}")).status_code == 404
    finally:
        await other.stop()
    await api.delete_database()
    await api.take(training_job.events)
    assert (await api.get("/v1/files"))["data"] == []


async def test_base64_of_a_large_file_is_that_of_all_of_it(api: Api) -> None:
    data = b"{" + bytes(range(1, 128)) * 5000 + b"}"
    made = await api.client.post("/v1/files", **form(("purpose", None, b"batch"), ("file", "a", data)))
    encoded = await api.client.get(f"/v1/files/{made.json()['id']}/content?encoding=base64")
    assert encoded.content == base64.b64encode(data)
    assert encoded.headers["content-length"] == str(len(encoded.content))

"""What every object store must do: the same tests for the fake and for a real S3 server.

A test module runs them with a subclass that overrides the fixture `store`.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.errors import AlreadyExists, Conflict, CorruptObject, InputError, StoreRefused
from shared.events import DatasetPointer, FolderReference
from shared.store.objects import ObjectStore
from shared.store.parts import PART_SIZE
from shared.store.streams import PART_SIZE as STREAM_PART
from tests.support import races

ROUNDS = 20  # tests/full runs a hundred on MinIO


class StoreSuite:
    @pytest.fixture
    def store(self) -> ObjectStore:
        """A store whose system bucket is `tunestream`, and which also has the bucket `datasets`."""
        raise NotImplementedError

    @pytest.fixture
    def folder(self) -> str:
        """A unique folder for a test, because tests may share the store."""
        return f"suite-{uuid.uuid4().hex[:8]}"

    # --- conditional writes -----------------------------------------------------------------------------------

    async def test_exactly_one_racer_creates(self, store: ObjectStore, folder: str) -> None:
        await races.create_once(store, folder, rounds=ROUNDS)

    async def test_exactly_one_racer_swaps(self, store: ObjectStore, folder: str) -> None:
        await races.compare_and_swap(store, folder, rounds=ROUNDS)

    async def test_a_conditional_write_fails_if_its_condition_does_not_hold(
        self, store: ObjectStore, folder: str
    ) -> None:
        etag = await store.create(f"{folder}/a", b"1")
        with pytest.raises(AlreadyExists):
            await store.create(f"{folder}/a", b"2")
        newer = await store.replace(f"{folder}/a", b"2", etag)
        assert newer != etag
        with pytest.raises(Conflict):
            await store.replace(f"{folder}/a", b"3", etag)
        assert await store.get(f"{folder}/a") == (b"2", newer)
        assert await store.get(f"{folder}/absent") is None

    @pytest.mark.parametrize("name", ["客服-对话", "поддержка", "हिन्दी", "café", "𐌀" * 60])
    async def test_a_key_may_have_letters_of_every_script(self, store: ObjectStore, folder: str, name: str) -> None:
        key = f"{folder}/{name}.json"
        etag = await store.create(key, b"1")
        newer = await store.replace(key, b"2", etag)
        assert await store.get(key) == (b"2", newer)
        assert [entry.key for entry in await store.list(f"{folder}/")] == [key]

    async def test_replacing_an_absent_object_is_a_conflict(self, store: ObjectStore, folder: str) -> None:
        with pytest.raises(Conflict):
            await store.replace(f"{folder}/absent", b"x", "0" * 32)
        assert await store.get(f"{folder}/absent") is None

    async def test_a_repeated_write_of_the_same_bytes_succeeds(self, store: ObjectStore, folder: str) -> None:
        """The client repeats a write when the reply to its first try got lost."""
        etag = await store.create(f"{folder}/a", b"mine")
        assert await store.create(f"{folder}/a", b"mine") == etag
        new = await store.replace(f"{folder}/a", b"later", etag)
        assert await store.replace(f"{folder}/a", b"later", etag) == new

    async def test_an_unconditional_write_replaces_and_a_deleted_object_is_absent(
        self, store: ObjectStore, folder: str
    ) -> None:
        first = await store.put(f"{folder}/a", b"1")
        second = await store.put(f"{folder}/a", b"22")
        assert (first.size, second.size) == (1, 2)
        assert await store.get(f"{folder}/a") == (b"22", second.etag)
        for _ in range(2):
            await store.delete(f"{folder}/a")
            assert await store.get(f"{folder}/a") is None
        assert await store.create(f"{folder}/a", b"3")

    # --- looking ----------------------------------------------------------------------------------------------

    async def test_the_right_settings_pass_the_check(self, store: ObjectStore) -> None:
        await store.check()

    async def test_listing(self, store: ObjectStore, folder: str) -> None:
        for key in ("jobs/ab/1", "jobs/ab/x/2", "jobs/cd/3", "top"):
            await store.put(f"{folder}/{key}", b"")
        listed = [entry.key for entry in await store.list(f"{folder}/jobs/ab/")]
        assert listed == [f"{folder}/jobs/ab/1", f"{folder}/jobs/ab/x/2"]
        assert await store.list(f"{folder}/nothing/") == []
        assert await store.folders(f"{folder}/jobs/") == ["ab", "cd"]
        assert await store.folders(f"{folder}/jobs/a") == ["ab"]
        assert await store.folders(f"{folder}/") == ["jobs"]
        assert folder in await store.folders("")

    async def test_pages_show_every_object_once_and_in_order(
        self, store: ObjectStore, folder: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("shared.store.listing.PAGE", 3)
        monkeypatch.setattr("tests.support.fakes.store.FakeStore.page_size", 3)
        keys = [f"{folder}/jobs/{job}/{name}" for job in ("aa", "ab", "bc") for name in ("a/1", "a/2", "b/c/3", "job")]
        for key in reversed(keys):
            await store.put(key, b"x")
        await store.put(f"{folder}/other", b"")
        found: list[str] = []
        while page := await store.page(f"{folder}/jobs/", found[-1] if found else ""):
            assert len(page) <= 3
            found += [entry.key for entry in page]
        assert found == keys
        assert await store.page(f"{folder}/nothing/") == []

    async def test_an_upload_that_is_old_and_not_completed_is_aborted(self, store: ObjectStore) -> None:
        assert await store.abort_uploads(store.now() - 86_400) == 0

    async def test_list_stat_and_put_agree_about_an_object(self, store: ObjectStore, folder: str) -> None:
        reference = await store.put(f"{folder}/a", b"four")
        (listed,) = await store.list(f"{folder}/a")
        found = await store.stat(f"{folder}/a")
        assert (listed.key, listed.etag, listed.size) == (f"{folder}/a", reference.etag, 4)
        assert found is not None and (found.key, found.etag, found.size) == (listed.key, listed.etag, listed.size)
        assert listed.modified == pytest.approx(time.time(), abs=60)
        assert found.modified == pytest.approx(listed.modified, abs=1)
        assert await store.exists(f"{folder}/a")
        assert await store.metadata(f"{folder}/a") == {}

    async def test_an_absent_object_has_no_properties(self, store: ObjectStore, folder: str) -> None:
        assert await store.stat(f"{folder}/absent") is None
        assert not await store.exists(f"{folder}/absent")
        assert await store.metadata(f"{folder}/absent") == {}

    async def test_the_store_has_a_clock_of_its_own(self, store: ObjectStore, folder: str) -> None:
        await store.put(f"{folder}/a", b"")
        (entry,) = await store.list(f"{folder}/")
        assert store.now() == pytest.approx(entry.modified, abs=3)
        assert store.at("datasets").now() == pytest.approx(store.now(), abs=0.1)
        assert store.for_leases().now() == pytest.approx(store.now(), abs=0.1)

    async def test_the_view_for_leases_is_the_same_bucket(self, store: ObjectStore, folder: str) -> None:
        leases = store.for_leases()
        assert leases.bucket == store.bucket
        etag = await leases.create(f"{folder}/a", b"1")
        assert await store.get(f"{folder}/a") == (b"1", etag)
        assert await leases.for_leases().get(f"{folder}/a") == (b"1", etag)
        elsewhere = store.at("datasets").for_leases()
        assert elsewhere.bucket == leases.at("datasets").bucket == "datasets"
        await elsewhere.put(f"{folder}/b", b"2")
        assert await leases.get(f"{folder}/b") is None
        found = await leases.at("datasets").get(f"{folder}/b")
        assert found is not None and found[0] == b"2"

    # --- names that no object has -----------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("bucket", "key"),
        [
            ("datasets", ""),
            ("datasets", "../jobs"),
            ("datasets", "a/./b"),
            ("datasets", "k" * 1025),
            ("datasets", "half \ud800"),
            ("no bucket", "a"),
            ("", "a"),
        ],
    )
    async def test_a_name_that_no_object_has_is_refused_by_every_method(
        self, store: ObjectStore, tmp_path: Path, bucket: str, key: str
    ) -> None:
        place = store.at(bucket)
        (tmp_path / "file").write_bytes(b"x")
        for call in (
            lambda: place.get(key),
            lambda: place.create(key, b"x"),
            lambda: place.replace(key, b"x", "0" * 32),
            lambda: place.put(key, b"x"),
            lambda: place.delete(key),
            lambda: place.stat(key),
            lambda: place.exists(key),
            lambda: place.metadata(key),
            lambda: place.upload(key, tmp_path / "file"),
            lambda: place.write_stream(key, _nothing()),
        ):
            with pytest.raises(StoreRefused):
                await call()
        if bucket != "datasets":
            for listing in (place.list, place.folders):
                with pytest.raises(StoreRefused):
                    await listing("")
        with pytest.raises(InputError) as caught:
            await store.describe(DatasetPointer.model_construct(bucket=bucket, key=key))
        assert (caught.value.code, caught.value.param) == ("file_not_found", "training_file")
        assert caught.value.message.startswith("There is no object ")
        caught.value.message.encode()  # it becomes an event

    async def test_a_client_reads_only_its_own_bucket_by_key(self, store: ObjectStore, folder: str) -> None:
        datasets = store.at("datasets")
        reference = await datasets.put(f"{folder}/a", b"rows")
        assert reference.bucket == datasets.bucket == "datasets"
        assert await store.get(f"{folder}/a") is None
        assert await store.read(reference) == b"rows"

    # --- reading what was promised ----------------------------------------------------------------------------

    async def test_a_downloaded_large_file_equals_the_uploaded_one(
        self, store: ObjectStore, folder: str, tmp_path: Path
    ) -> None:
        """A file larger than `PART_SIZE` is uploaded in parts."""
        source = tmp_path / "large"
        source.write_bytes(b"0123456789abcdef" * (PART_SIZE // 16) + b"tail")
        reference = await store.upload(f"{folder}/large", source)
        assert reference.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
        await store.download(reference, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == source.read_bytes()
        assert await store.describe(DatasetPointer(bucket="tunestream", key=f"{folder}/large")) == reference

    @pytest.mark.parametrize("size", [0, 1, 10_000, STREAM_PART - 1, STREAM_PART, STREAM_PART + 1, 2 * STREAM_PART + 7])
    async def test_a_stream_becomes_the_object_and_comes_back(self, store: ObjectStore, folder: str, size: int) -> None:
        data = (bytes(range(251)) * (size // 251 + 1))[:size]

        async def chunks(length: int) -> AsyncIterator[bytes]:
            for start in range(0, size, length):
                yield data[start : start + length]

        for length in (70_001, STREAM_PART + 3, 3 * STREAM_PART):
            reference = await store.write_stream(f"{folder}/stream", chunks(length))
            assert (reference.size, reference.sha256) == (size, hashlib.sha256(data).hexdigest())
            found = await store.stat(f"{folder}/stream")
            assert found is not None and (found.size, found.etag) == (size, reference.etag)
        assert b"".join([chunk async for chunk in store.stream(reference)]) == data
        assert await store.read(reference) == data

    @pytest.mark.parametrize("size", [0, 10, 2 * STREAM_PART + 7])
    async def test_a_stream_that_breaks_off_leaves_nothing(self, store: ObjectStore, folder: str, size: int) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(0, size, 2**20):
                yield b"x" * 2**20
            raise ValueError("the client is gone")

        with pytest.raises(ValueError, match="gone"):
            await store.write_stream(f"{folder}/broken", chunks())
        assert await store.list(f"{folder}/") == []

    async def test_a_stream_of_something_else_never_gives_its_end(self, store: ObjectStore, folder: str) -> None:
        reference = await store.put(f"{folder}/s", b"x" * (2 * STREAM_PART + 7))
        for other in (b"y" * (2 * STREAM_PART + 7), b"x" * 2 * STREAM_PART, b"x" * 7):
            await store.put(f"{folder}/s", other)
            got = 0
            with pytest.raises(CorruptObject):
                async for chunk in store.stream(reference):
                    got += len(chunk)
            assert got < reference.size
        await store.delete(f"{folder}/s")
        with pytest.raises(CorruptObject, match="is gone"):
            _ = [chunk async for chunk in store.stream(reference)]

    async def test_overwritten_bytes_are_refused_and_leave_no_file(
        self, store: ObjectStore, folder: str, tmp_path: Path
    ) -> None:
        reference = await store.put(f"{folder}/small", b"as promised")
        assert await store.read(reference) == b"as promised"
        await store.put(f"{folder}/small", b"tampered with")
        with pytest.raises(CorruptObject):
            await store.download(reference, tmp_path / "small")
        with pytest.raises(CorruptObject):
            await store.read(reference)
        assert list(tmp_path.iterdir()) == []

    async def test_a_deleted_object_is_refused(self, store: ObjectStore, folder: str, tmp_path: Path) -> None:
        reference = await store.put(f"{folder}/gone", b"x")
        await store.delete(f"{folder}/gone")
        with pytest.raises(CorruptObject, match="is gone"):
            await store.read(reference)
        with pytest.raises(CorruptObject, match="is gone"):
            await store.download(reference, tmp_path / "gone")

    async def test_a_pointer_is_described(self, store: ObjectStore, folder: str) -> None:
        reference = await store.at("datasets").put(f"{folder}/d.jsonl", b"rows")
        pointer = DatasetPointer(bucket="datasets", key=f"{folder}/d.jsonl")
        assert await store.describe(pointer) == reference
        right = {"size": 4, "etag": f'"{reference.etag}"', "sha256": reference.sha256}
        assert await store.describe(pointer.model_copy(update=right)) == reference

    @pytest.mark.parametrize("wrong", [{"size": 5}, {"etag": "0" * 32}, {"sha256": "0" * 64}])
    async def test_a_pointer_to_something_else_says_what_differs(
        self, store: ObjectStore, folder: str, wrong: dict[str, object]
    ) -> None:
        await store.put(f"{folder}/d.jsonl", b"rows")
        pointer = DatasetPointer(bucket="tunestream", key=f"{folder}/d.jsonl").model_copy(update=wrong)
        ((name, value),) = wrong.items()
        with pytest.raises(InputError, match=rf"d\.jsonl has {name} \w+, the event says {value}") as caught:
            await store.describe(pointer)
        assert (caught.value.code, caught.value.param) == ("file_changed", f"dataset.{name}")

    @pytest.mark.parametrize("bucket", ["tunestream", "nowhere"])
    async def test_a_pointer_to_nothing_says_so(self, store: ObjectStore, folder: str, bucket: str) -> None:
        with pytest.raises(InputError, match=f"no object {bucket}/{folder}/unknown") as caught:
            await store.describe(DatasetPointer(bucket=bucket, key=f"{folder}/unknown"))
        assert (caught.value.code, caught.value.param) == ("file_not_found", "training_file")

    # --- folders ----------------------------------------------------------------------------------------------

    async def test_a_downloaded_folder_equals_the_uploaded_one(
        self, store: ObjectStore, folder: str, tmp_path: Path
    ) -> None:
        uploaded = await self._upload_two_files(store, folder, tmp_path)
        await store.download_folder(uploaded, tmp_path / "in")
        files = {
            file.relative_to(tmp_path / "in").as_posix(): file.read_bytes()
            for file in (tmp_path / "in").rglob("*")
            if file.is_file()
        }
        assert files == {"a.json": b"{}", "deep/b ü.bin": bytes(1000)}
        assert await store.folders(f"{folder}/o") == ["one"]

    async def test_a_folder_that_exists_is_kept(self, store: ObjectStore, folder: str, tmp_path: Path) -> None:
        uploaded = await self._upload_two_files(store, folder, tmp_path)
        (tmp_path / "in").mkdir()
        await store.download_folder(uploaded, tmp_path / "in")
        assert list((tmp_path / "in").iterdir()) == []

    async def test_a_folder_with_a_changed_file_is_refused_whole(
        self, store: ObjectStore, folder: str, tmp_path: Path
    ) -> None:
        uploaded = await self._upload_two_files(store, folder, tmp_path)
        await store.put(f"{folder}/one/deep/b ü.bin", b"changed")
        with pytest.raises(CorruptObject):
            await store.download_folder(uploaded, tmp_path / "in")
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    async def test_a_manifest_that_names_a_file_outside_is_refused(
        self, store: ObjectStore, folder: str, tmp_path: Path
    ) -> None:
        file = await store.put(f"{folder}/file", b"x")
        manifest = json.dumps({"files": {"../outside": file.model_dump()}}).encode()
        bad = FolderReference(
            bucket="tunestream", prefix=f"{folder}/", manifest=await store.put(f"{folder}/manifest.json", manifest)
        )
        with pytest.raises(CorruptObject, match="outside its folder"):
            await store.download_folder(bad, tmp_path / "in")
        assert list(tmp_path.iterdir()) == []

    async def _upload_two_files(self, store: ObjectStore, folder: str, tmp_path: Path) -> FolderReference:
        (tmp_path / "out/deep").mkdir(parents=True)
        (tmp_path / "out/a.json").write_bytes(b"{}")
        (tmp_path / "out/deep/b ü.bin").write_bytes(bytes(1000))
        return await store.upload_folder(f"{folder}/one", tmp_path / "out")


async def _nothing() -> AsyncIterator[bytes]:
    for chunk in ():
        yield chunk

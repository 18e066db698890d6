"""The object store client against the real S3 server."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from shared.errors import ConfigError, Conflict, CorruptObject, InputError
from shared.events import DatasetPointer
from shared.objects import PART_SIZE, ObjectStore
from tests.support import races
from tests.support.embedded import Embedded

ROUNDS = 8  # tests/full races a hundred


async def test_exactly_one_racer_creates(parts: Embedded) -> None:
    await races.create_once(parts.objects, "race", rounds=ROUNDS)


async def test_exactly_one_racer_swaps(parts: Embedded) -> None:
    await races.compare_and_swap(parts.objects, "race", rounds=ROUNDS)


async def test_a_repeated_write_of_the_same_bytes_recognises_itself(parts: Embedded) -> None:
    """What the client does when the reply to its first try got lost."""
    etag = await parts.objects.create("repeat/create", b"mine")
    assert await parts.objects.create("repeat/create", b"mine") == etag
    new = await parts.objects.replace("repeat/create", b"later", etag)
    assert await parts.objects.replace("repeat/create", b"later", etag) == new


async def test_swapping_what_is_not_there_is_a_conflict(parts: Embedded) -> None:
    with pytest.raises(Conflict):
        await parts.objects.replace("nothing/here", b"x", "0" * 32)


async def test_a_large_file_goes_in_parts_and_comes_back_whole(parts: Embedded, tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.write_bytes(b"0123456789abcdef" * (PART_SIZE // 16) + b"tail")
    reference = await parts.objects.upload("files/large", source)
    assert reference.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    await parts.objects.download(reference, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    described = await parts.objects.describe(DatasetPointer(bucket="tunestream", key="files/large"))
    assert described == reference


async def test_overwritten_bytes_are_refused_and_leave_no_file(parts: Embedded, tmp_path: Path) -> None:
    reference = await parts.objects.put("files/small", b"as promised")
    await parts.objects.put("files/small", b"tampered with")
    with pytest.raises(CorruptObject):
        await parts.objects.download(reference, tmp_path / "small")
    with pytest.raises(CorruptObject):
        await parts.objects.read(reference)
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_comes_back_as_it_went(parts: Embedded, tmp_path: Path) -> None:
    (tmp_path / "out/deep").mkdir(parents=True)
    (tmp_path / "out/a.json").write_bytes(b"{}")
    (tmp_path / "out/deep/b ü.bin").write_bytes(bytes(1000))
    folder = await parts.objects.upload_folder("folders/one", tmp_path / "out")
    await parts.objects.download_folder(folder, tmp_path / "in")
    names = {file.relative_to(tmp_path / "in").as_posix() for file in (tmp_path / "in").rglob("*") if file.is_file()}
    assert names == {"a.json", "deep/b ü.bin"}
    assert "one" in await parts.objects.folders("folders/")
    assert await parts.objects.folders("folders/o") == ["one"]


async def test_describing_something_else_than_was_announced_says_what_differs(parts: Embedded) -> None:
    await parts.objects.put("files/known", b"123")
    with pytest.raises(InputError, match="size 3, the event says 4"):
        await parts.objects.describe(DatasetPointer(bucket="tunestream", key="files/known", size=4))
    with pytest.raises(InputError, match="no object tunestream/files/unknown"):
        await parts.objects.describe(DatasetPointer(bucket="tunestream", key="files/unknown"))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"access_key": "nobody"}, "knows no access key 'nobody' (TUNESTREAM_STORE__ACCESS_KEY)"),
        ({"secret_key": SecretStr("canary")}, "refuses TUNESTREAM_STORE__SECRET_KEY"),
        ({"system_bucket": "nowhere"}, "has no bucket 'nowhere' (TUNESTREAM_STORE__SYSTEM_BUCKET)"),
    ],
)
async def test_a_wrong_setting_is_named_at_the_start_and_later(
    parts: Embedded, wrong: dict[str, Any], words: str
) -> None:
    objects = ObjectStore.connect(parts.settings.store.model_copy(update=wrong))
    with pytest.raises(ConfigError) as caught:
        await objects.check()
    assert words in str(caught.value)
    assert "canary" not in str(caught.value)
    with pytest.raises(ConfigError, match="TUNESTREAM_STORE__"):
        await objects.list("files/")


async def test_the_right_settings_pass_the_check(parts: Embedded) -> None:
    await parts.objects.check()

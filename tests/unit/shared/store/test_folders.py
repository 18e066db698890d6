"""A folder is found again as it was uploaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.store.folders import find_folder
from tests.support.fakes.store import FakeStore


@pytest.mark.parametrize("prefix", ["jobs/j/adapter", "jobs/j/adapter/"])
async def test_the_reference_of_an_uploaded_folder_is_found_by_its_prefix(tmp_path: Path, prefix: str) -> None:
    objects = FakeStore()
    (tmp_path / "adapter_config.json").write_text("{}")

    uploaded = await objects.upload_folder(prefix, tmp_path)

    assert uploaded.prefix == "jobs/j/adapter/"
    assert await find_folder(objects, objects.bucket, prefix) == uploaded


async def test_a_folder_without_a_manifest_is_not_there_yet(tmp_path: Path) -> None:
    objects = FakeStore()
    await objects.put("jobs/j/adapter/adapter_config.json", b"{}")

    assert await find_folder(objects, objects.bucket, "jobs/j/adapter/") is None

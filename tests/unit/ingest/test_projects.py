"""A drop or an event reaches no file of another project, and does not tell whether there is one."""

from __future__ import annotations

import pytest

from shared.errors import InputError
from shared.events import DatasetPointer
from tests.unit.ingest.world import ROWS, World, at

FOREIGN = [
    at("files/file-x/content", "tunestream"),
    at("keys/key_x.json", "tunestream"),
    at("projects/mine/v.jsonl", "tunestream"),
    at("projects/other/v.jsonl"),
    at("projects/other/v.jsonl", "elsewhere"),
    at("projects/default/v.jsonl"),
    at("v.jsonl"),
    at("Projects/mine/v.jsonl"),
    at("projects/mine.v.jsonl"),
]
"""What a job of the project `mine` may not use."""


@pytest.fixture
def world() -> World:
    return World()


def put(world: World, pointer: DatasetPointer) -> None:
    world.store.at(pointer.bucket).add(pointer.key, ROWS)


def sidecar(pointer: DatasetPointer) -> bytes:
    return f"validation_file: {{bucket: {pointer.bucket}, key: {pointer.key}}}".encode()


async def failure(world: World, foreign: DatasetPointer) -> tuple[str, str, str | None]:
    world.drop("projects/mine/a.jsonl", job=sidecar(foreign))
    await world.sweep(2)
    assert "projects/mine/a.jsonl" not in world.uploaded()
    [failed] = world.failed()
    return failed.code, failed.message, failed.param


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda each: f"{each.bucket}/{each.key}")
async def test_a_sidecar_names_no_file_of_another_project(world: World, foreign: DatasetPointer) -> None:
    missing = await failure(world, foreign)
    again = World()
    put(again, foreign)
    found = await failure(again, foreign)

    assert found == missing
    assert (found[0], found[2]) == ("invalid_validation_file", "validation_file")
    assert f"{foreign.bucket}/{foreign.key}" in found[1]


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda each: f"{each.bucket}/{each.key}")
async def test_an_event_names_no_file_of_another_project(world: World, foreign: DatasetPointer) -> None:
    put(world, foreign)
    world.drop("projects/mine/a.jsonl")
    await world.announce("one", dataset=at("projects/mine/a.jsonl"), validation_file=foreign)
    await world.inbox.make_jobs()

    assert [failed.code for failed in world.failed()] == ["invalid_validation_file"]


@pytest.mark.parametrize("there", [True, False])
async def test_an_event_makes_no_dataset_of_what_is_in_the_system_s_own_bucket(world: World, there: bool) -> None:
    stored = at("files/file-x/content", "tunestream")
    if there:
        put(world, stored)
    with pytest.raises(InputError, match="keeps for itself") as refused:
        await world.announce("one", dataset=stored)
    assert (refused.value.code, refused.value.param) == ("file_not_readable", "dataset")
    await world.inbox.make_jobs()
    assert world.manifests() == []


@pytest.mark.parametrize(
    ("dataset", "wanted"),
    [
        ("projects/mine/a.jsonl", at("projects/mine/v/v.jsonl")),
        ("projects/mine/a.jsonl", at("projects/mine/v.jsonl", "elsewhere")),
        ("a.jsonl", at("v.jsonl")),
        ("team/a.jsonl", at("v.jsonl", "elsewhere")),
    ],
)
async def test_a_file_of_the_same_project_is_used(world: World, dataset: str, wanted: DatasetPointer) -> None:
    put(world, wanted)
    world.datasets.add(dataset.replace(".jsonl", ".job.yaml"), sidecar(wanted))
    await world.announce("one", dataset=(world.drop(dataset), at(dataset))[1])
    await world.inbox.make_jobs()

    assert world.failed() == []
    assert [each["validation_file"]["key"] for each in world.manifests() if each["dataset"]["key"] == dataset] == [
        wanted.key
    ]

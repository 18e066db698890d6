"""What a later attempt finds of the checkpoints of earlier ones."""

from __future__ import annotations

import json

import pytest

from services.trainer.job.found import Clock, find_checkpoints
from shared.stages.ledger import attempt_prefix
from tests.support.fakes.store import FakeStore

STATE = ("adapter.safetensors", "optimizer.safetensors", "state.json")
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
JOB = "ftjob-abc"
ATTEMPTS = [attempt_prefix(JOB, "trainer", number) for number in (3, 2, 1)]


def add(objects: FakeStore, place: str, files: tuple[str, ...] = STATE, *, job: str = JOB, whole: bool = True) -> str:
    """Add the folder of a checkpoint, such as `1/resume/step-5`. Returns its prefix."""
    prefix = f"jobs/{job}/trainer/attempt-{place}/"
    references = {name: objects.add(prefix + name, name.encode()).model_dump() for name in files}
    if whole:
        objects.add(f"{prefix}manifest.json", json.dumps({"files": references}).encode())
    return prefix


async def steps(objects: FakeStore) -> list[tuple[int, str]]:
    """The states that are found: their steps, and what their prefixes end in."""
    found = await find_checkpoints(objects, ATTEMPTS)
    return [(step, folder.prefix.partition("attempt-")[2]) for step, folder in found.states]


async def test_a_run_goes_on_from_the_newest_state_of_any_attempt(objects: FakeStore) -> None:
    for place in ("1/resume/step-5", "1/resume/step-20", "2/resume/step-9", "3/resume/step-9", "9/resume/step-99"):
        add(objects, place)
    add(objects, "2/checkpoints/step-30", ADAPTER)
    assert await steps(objects) == [
        (20, "1/resume/step-20/"),
        (9, "3/resume/step-9/"),
        (9, "2/resume/step-9/"),
        (5, "1/resume/step-5/"),
    ]


async def test_what_an_older_version_wrote_is_continued_and_not_listed(objects: FakeStore) -> None:
    add(objects, "1/checkpoints/step-10")
    listed = add(objects, "1/checkpoints/step-20", ADAPTER)
    again = add(objects, "2/checkpoints/step-20", ADAPTER)
    found = await find_checkpoints(objects, ATTEMPTS)
    assert [step for step, _ in found.states] == [10]
    assert {step: folder.prefix for step, folder in found.listed.items()} == {20: again}
    assert listed != again


async def test_a_folder_without_its_manifest_is_none(objects: FakeStore) -> None:
    add(objects, "1/resume/step-5")
    add(objects, "1/resume/step-6", whole=False)
    assert [step for step, _ in await steps(objects)] == [5]
    found = await find_checkpoints(objects, ATTEMPTS)
    assert found.clocks == [Clock(6, 1, JOB), Clock(5, 1, JOB)], "it can be buried, though"


async def test_what_is_buried_is_not_there_any_more(objects: FakeStore) -> None:
    prefix = add(objects, "1/resume/step-5")
    add(objects, "1/resume/step-4")
    add(objects, "1/resume/step-5", job="ftjob-abcdef")
    clock = Clock(5, 1, JOB)
    await clock.bury(objects, "a test said so")
    await clock.bury(objects, "and so did another")
    tombstone = json.loads(objects.held["deleted/checkpoints/ftjob-abc-1-5.json"].data)
    assert (tombstone["prefix"], tombstone["reason"]) == (prefix, "a test said so")
    found = await find_checkpoints(objects, ATTEMPTS)
    assert [step for step, _ in found.states] == [4]
    assert found.clocks == [Clock(4, 1, JOB)]
    others = await find_checkpoints(objects, [attempt_prefix("ftjob-abcdef", "trainer", 1)])
    assert [step for step, _ in others.states] == [5]


async def test_a_checkpoint_that_vanishes_while_it_is_looked_at_is_none(objects: FakeStore) -> None:
    add(objects, "1/resume/step-4")
    gone = add(objects, "1/resume/step-5")

    class Vanishing(FakeStore):
        async def before(self, operation: str, key: str) -> None:
            if (operation, key) == ("get", f"{gone}manifest.json"):
                del self.held[key]

    assert [step for step, _ in await steps(Vanishing(disk=objects.disk))] == [4]


@pytest.mark.parametrize("manifest", [b"", b"[]", b"{}", b'{"files": 3}', b"\xff"])
async def test_odd_keys_and_manifests_hide_nothing_else(objects: FakeStore, manifest: bytes) -> None:
    add(objects, "1/resume/step-5")
    for place in ("1/resume/step-x", "1/resume/step-", "1/resume/other", "1/checkpoints/.step-6.tmp"):
        add(objects, place)
    objects.add(f"{ATTEMPTS[0]}resume/step-7/manifest.json", manifest)
    assert [step for step, _ in await steps(objects)] == [5]


async def test_a_job_that_waited_for_long_is_looked_through_by_one_listing(objects: FakeStore) -> None:
    attempts = [attempt_prefix(JOB, "trainer", number) for number in range(500, 0, -1)]
    for number in range(1, 501):
        objects.add(f"jobs/{JOB}/trainer/attempt-{number}/preview.txt", b"")
    add(objects, "7/resume/step-5")
    found = await find_checkpoints(objects, attempts)
    assert [step for step, _ in found.states] == [5]
    assert [operation for operation, _ in objects.calls] == ["list", "list", "get"]
    assert not (await find_checkpoints(objects, [])).states

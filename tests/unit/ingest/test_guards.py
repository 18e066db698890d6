"""Whatever one drop, sidecar, event or notification holds, and whatever the store says of it, ingest goes on with the
next one, now and after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingest.domain import datasets
from shared.errors import ConfigError, InputError, StoreRefused, StoreUnavailable, TransientError
from shared.events import DatasetPointer, JobSpec
from shared.stages.ledger import JOBS
from tests.support.waiting import until
from tests.unit.ingest.test_job_settings import DOCUMENTS
from tests.unit.ingest.test_notifications import message
from tests.unit.ingest.world import ROWS, World, at

ARCHIVED = StoreRefused("InvalidObjectState", "the object is archived")
DENIED = ConfigError("the object store denies a right that this service needs")
BROKEN = StoreUnavailable("the object store answered InternalError")
UNKNOWN = ValueError("object name with '.' or '..' not supported")
ERRORS = (ARCHIVED, DENIED, BROKEN, UNKNOWN, InputError("file_not_found", "There is no object."))


@pytest.fixture
def world() -> World:
    return World()


# --- drops --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", ERRORS, ids=repr)
async def test_one_object_that_cannot_be_read_stops_no_sweep(world: World, error: Exception) -> None:
    world.drop("a.jsonl", "b.jsonl", "c.jsonl")
    world.store.faults["describe", "b.jsonl"] = error
    await world.sweep()
    assert world.uploaded() == ["a.jsonl", "c.jsonl"]
    world.drop("d.jsonl")
    world.start()
    await world.sweep()
    assert world.uploaded() == ["a.jsonl", "c.jsonl", "d.jsonl"]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
async def test_what_cannot_become_a_job_is_in_quarantine_once(world: World, error: Exception) -> None:
    world.drop("a/b.jsonl")
    world.store.faults["describe", "a/b.jsonl"] = error
    await world.sweep(10, apart=60)
    world.start()
    await world.sweep(10, apart=60)
    [about] = await world.quarantined()
    assert (about.kind, about.place) == ("drop", "s3://datasets/a/b.jsonl")
    assert about.reason and about.remedy
    assert about.at < world.store_time and about.solved_at is None


async def test_what_the_store_refuses_is_not_read_again_until_it_changes(world: World) -> None:
    world.drop("a.jsonl")
    world.store.faults["describe", "a.jsonl"] = ARCHIVED
    await world.sweep(20, apart=60)
    world.start()
    await world.sweep(20, apart=60)
    assert world.reads("a.jsonl") == 1
    [about] = await world.quarantined()
    assert about.final and about.field == "dataset" and "InvalidObjectState" in about.reason

    world.wait(5)
    world.drop("a.jsonl")  # the same bytes, put there again
    del world.store.faults["describe", "a.jsonl"]
    await world.sweep()
    assert world.uploaded() == ["a.jsonl"]
    [about] = await world.quarantined()
    assert about.solved_at == world.store_time


@pytest.mark.parametrize("error", [DENIED, BROKEN, UNKNOWN], ids=repr)
async def test_what_may_be_mended_is_tried_again_less_and_less_often(world: World, error: Exception) -> None:
    world.drop("a.jsonl")
    world.store.faults["describe", "a.jsonl"] = error
    await world.sweep(600, apart=6)  # an hour
    assert 10 < world.reads("a.jsonl") < 25
    [about] = await world.quarantined()
    assert not about.final

    del world.store.faults["describe", "a.jsonl"]
    await world.sweep(2, apart=700)
    assert world.uploaded() == ["a.jsonl"]
    [about] = await world.quarantined()
    assert about.solved_at is not None


async def test_what_a_policy_denies_is_taken_when_the_policy_is_mended(world: World) -> None:
    world.drop("a.jsonl")
    world.store.faults["describe", "a.jsonl"] = InputError("file_not_readable", "a.jsonl may not be read here")
    world.store.faults["stat", "a.jsonl"] = DENIED
    await world.sweep(5)
    world.start()
    await world.sweep(5)
    [about] = await world.quarantined()
    assert not about.final
    world.store.faults.clear()
    await world.sweep(2, apart=30)
    assert world.uploaded() == ["a.jsonl"]


async def test_a_blip_leaves_nothing_in_quarantine(world: World) -> None:
    world.drop("a.jsonl")
    world.store.faults["describe", "a.jsonl"] = BROKEN
    await world.sweep()
    world.store.faults.clear()
    await world.sweep()
    assert world.uploaded() == ["a.jsonl"] and await world.quarantined() == []


async def test_a_drop_that_vanished_is_taken_when_it_is_put_there_again(world: World) -> None:
    world.drop("a.jsonl")
    world.store.faults["describe", "a.jsonl"] = InputError("file_not_found", "There is no object.")
    await world.sweep()
    world.store.faults.clear()
    await world.sweep()
    assert world.uploaded() == ["a.jsonl"]


async def test_if_the_whole_store_is_away_the_sweep_ends_at_once_and_nothing_is_held_against_a_drop(
    world: World,
) -> None:
    world.drop("a.jsonl", "b.jsonl")
    world.store.faults.update({("describe", "a.jsonl"): BROKEN, ("check", JOBS): BROKEN})
    with pytest.raises(StoreUnavailable):
        await world.sweep()
    assert world.reads("b.jsonl") == 0
    world.store.faults.clear()
    await world.sweep(apart=0.0)
    world.wait(1)
    await world.sweep()
    assert world.uploaded() == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize("error", [DENIED, BROKEN, ARCHIVED, UNKNOWN], ids=repr)
async def test_a_listing_that_fails_ends_no_service(world: World, error: Exception) -> None:
    world.drop("a.jsonl")
    world.wait(5)
    world.store.faults["list", ""] = error
    async with running(world.sweeps.run):
        await until(lambda: world.store.calls.count(("list", "")) >= 2, "it was tried again")
        world.store.faults.clear()
        await until(world.uploaded, "the drop becomes a job")


@pytest.mark.parametrize("error", [DENIED, ARCHIVED, UNKNOWN], ids=repr)
async def test_a_quarantine_that_cannot_be_used_ends_no_sweep(world: World, error: Exception) -> None:
    world.drop("a.jsonl", "b.jsonl")
    world.store.faults["describe", "a.jsonl"] = ARCHIVED
    if not isinstance(error, ValueError):
        world.store.faults["list", "quarantine/"] = error
    await world.sweep()
    [key] = [key for operation, key in world.store.calls if operation == "create" and key.startswith("quarantine/")]
    world.store.faults["create", key] = error
    world.store.held.pop(key)
    for marker in [name for name in world.store.held if name.startswith("ingest/seen/")]:
        world.store.held.pop(marker)
    world.start()
    await world.sweep(5)
    assert world.uploaded() == ["b.jsonl", "b.jsonl"]


async def test_a_key_that_no_pointer_can_hold_goes_into_quarantine(world: World) -> None:
    def refuse(**fields: object) -> DatasetPointer:
        return DatasetPointer.model_validate(fields | ({"bucket": None} if fields["key"] == "odd.jsonl" else {}))

    world.drop("odd.jsonl", "plain.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("services.ingest.deduplicator.DatasetPointer", refuse)
        await world.sweep(3)
    assert world.uploaded() == ["plain.jsonl"]
    [about] = await world.quarantined()
    assert (about.field, about.final) == ("key", True)


CONTROL = re.compile(r"[\x00-\x1f\x7f]")
ODD_KEYS = (
    "a//b.jsonl", "/a.jsonl", "a/../b.jsonl", "a/./b.jsonl", "../a.jsonl", "a\nb.jsonl", "\x01.jsonl", "\x7f.jsonl",
    "😀.jsonl", "a\u0301.jsonl", "\u00e1.jsonl", "%2e%2e/a.jsonl", "a+b c.jsonl", "a\\b.jsonl", "\u202egnp.jsonl",
    "a.jsonl/", "k" * 1018 + ".jsonl", "é" * 509 + ".jsonl", "a.job.yaml/b.jsonl", "a\t.jsonl", "*.jsonl",
    "?a=b&c.jsonl", "\ufeff.jsonl",
)  # fmt: skip


async def test_a_dataset_of_any_key_is_a_job_or_in_quarantine(world: World) -> None:
    world.drop(*ODD_KEYS)
    await world.sweep(2)
    refused = {about.place.removeprefix("s3://datasets/") for about in await world.quarantined()}
    hidden = {"a/../b.jsonl", "a/./b.jsonl", "../a.jsonl", "a.jsonl/"}
    assert sorted([*world.uploaded(), *refused]) == sorted(set(ODD_KEYS) - hidden)
    assert all(CONTROL.search(key) for key in refused)
    assert max(len(key.encode()) for key in world.store.held) < 200
    assert all(len(key.encode()) <= 1024 for _, key in world.store.calls)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.text(max_size=40), st.none() | DOCUMENTS | st.binary(max_size=200)), min_size=5, max_size=10)
)
def test_whatever_is_dropped_a_good_drop_among_it_becomes_a_job(drops: list[tuple[str, bytes | None]]) -> None:
    async def run() -> None:
        world = World()
        for number, (name, sidecar) in enumerate(drops):
            world.drop(f"{name}{number}.jsonl", job=sidecar)
        world.drop("good of another user.jsonl", job=b"suffix: good")
        await world.sweep()
        world.start()
        await world.sweep()
        assert world.uploaded().count("good of another user.jsonl") == 1
        taken = {job["dataset"]["key"] for job in world.manifests()}
        refused = {about.place.removeprefix("s3://datasets/") for about in await world.quarantined()}
        assert taken | refused == {key for key in world.datasets.held if datasets.is_dataset(key)}
        assert all(CONTROL.search(key) for key in refused)

    asyncio.run(run())


# --- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("suffix: 2024-31-12", "suffix"),
        ("hyperparameters: {max_grad_norm: .inf}", "hyperparameters.max_grad_norm"),
        ("seed: " + "9" * 5000, "seed"),
        ("[" * 50_000, None),
        ("x" * 100_000, None),
        ("a: &a [b]\nc: *a", None),
    ],
)
async def test_settings_that_are_wrong_end_their_job_and_no_other(world: World, text: str, field: str | None) -> None:
    world.drop("a.jsonl", job=text.encode())
    world.drop("b.jsonl")
    await world.sweep()
    assert world.uploaded() == ["b.jsonl"]
    [failed] = world.failed()
    assert failed.code == "invalid_job_settings" and "a.job.yaml" in failed.message
    assert field is None or (failed.param or "").startswith(field)


async def test_settings_that_are_too_large_are_not_read(world: World) -> None:
    world.drop("a.jsonl", job=b"x" * 100_000)
    await world.sweep()
    [first] = world.failed()
    assert "64 KiB" in first.message
    assert ("get", "a.job.yaml") not in world.store.calls
    world.drop("a.jsonl", job=b"y" * 100_000)
    await world.sweep()
    assert len({failed.job_id for failed in world.failed()}) == 2


@pytest.mark.parametrize("error", [DENIED, ARCHIVED], ids=repr)
@pytest.mark.parametrize("operation", ["stat", "get"])
async def test_settings_that_may_not_be_read_fail_the_job_instead_of_training_without_them(
    world: World, operation: str, error: Exception
) -> None:
    world.drop("a.jsonl", job=b"suffix: mine")
    world.drop("b.jsonl")
    world.store.faults[operation, "a.job.yaml"] = error
    await world.sweep()
    assert world.uploaded() == ["b.jsonl"]
    assert [(failed.code, "a.job.yaml" in failed.message) for failed in world.failed()] == [
        ("invalid_job_settings", True)
    ]


async def test_a_name_that_is_too_long_for_a_sidecar_has_none(world: World) -> None:
    stem = "n" * 249
    world.drop(f"{stem}.jsonl")
    for ending in (".job.yaml", ".job.yml", ".job.json"):
        world.store.faults["stat", stem + ending] = StoreRefused("XMinioInvalidObjectName", "the name is too long")
    await world.sweep()
    assert world.uploaded() == [f"{stem}.jsonl"]


@pytest.mark.parametrize("error", [DENIED, ARCHIVED, InputError("file_not_found", "no such bucket")], ids=repr)
async def test_a_validation_file_that_cannot_be_read_fails_the_job(world: World, error: Exception) -> None:
    world.store.faults["describe", "v.jsonl"] = error
    world.drop("a.jsonl", job=b"validation_file: {bucket: elsewhere, key: v.jsonl}")
    world.drop("b.jsonl")
    await world.sweep()
    assert world.uploaded() == ["b.jsonl"]
    assert [(failed.code, failed.param) for failed in world.failed()] == [
        ("invalid_validation_file", "validation_file")
    ]


async def test_a_job_whose_manifest_an_older_version_wrote_with_null_for_infinity(world: World) -> None:
    world.drop("a.jsonl", "b.jsonl")
    await world.sweep()
    for key in [key for key in world.store.held if key.endswith("/job.json")]:
        manifest = json.loads(world.store.held[key].data)
        if manifest["dataset"]["key"] == "a.jsonl":
            manifest["spec"]["hyperparameters"]["max_grad_norm"] = None
            world.store.add(key, json.dumps(manifest).encode())
    for key in [key for key in world.store.held if key.startswith("ingest/seen/")]:
        del world.store.held[key]
    world.start()
    await world.sweep(3)
    assert world.uploaded() == ["a.jsonl", "b.jsonl", "b.jsonl"]
    [about] = await world.quarantined()
    assert about.field == "spec.hyperparameters.max_grad_norm" and "rerun" in about.reason


# --- events -------------------------------------------------------------------------------------------------------


async def test_an_event_that_names_a_place_that_is_forbidden_stops_no_other(world: World) -> None:
    world.store.at("elsewhere").add("secret.jsonl", ROWS)
    world.drop("rows.jsonl", "other.jsonl")
    world.store.faults["describe", "secret.jsonl"] = DENIED
    secret = at("secret.jsonl", "elsewhere")
    await world.announce("one", dataset=secret)
    await world.announce("two", dataset=at("rows.jsonl"), validation_file=secret)
    await world.announce("three", dataset=at("other.jsonl"))
    await world.inbox.make_jobs()
    assert world.uploaded() == ["other.jsonl"]
    assert [(failed.code, failed.param) for failed in world.failed()] == [
        ("invalid_validation_file", "validation_file")
    ]
    for _ in range(5):
        world.wait(60)
        await world.inbox.make_jobs()
    [about] = await world.quarantined()
    assert (about.kind, about.place, about.final) == ("event", "s3://elsewhere/secret.jsonl", False)


@pytest.mark.parametrize(
    ("stored", "field"),
    [
        (b'{"source": "", "event": {"dataset": {"bucket": "datasets", "key": "k"},'
         b' "spec": {"gate": {"min_delta": null}}}}', "event.spec.gate.min_delta"),
        (b"\xff", None),
        (b"", None),
        (b"[" * 100_000, None),
    ],
)  # fmt: skip
async def test_an_announcement_that_cannot_be_read_stops_no_other(
    world: World, stored: bytes, field: str | None
) -> None:
    world.store.add("ingest/inbox/aaa", stored)
    world.drop("rows.jsonl")
    await world.announce("one", dataset=at("rows.jsonl"))
    await world.inbox.make_jobs()
    world.start()
    await world.inbox.make_jobs()
    assert world.uploaded() == ["rows.jsonl"]
    [about] = await world.quarantined()
    assert (about.kind, about.place, about.field) == ("event", "s3://tunestream/ingest/inbox/aaa", field)


async def test_an_event_that_could_not_be_read_again_is_refused(world: World) -> None:
    world.drop("rows.jsonl")
    spec = JobSpec.model_construct(metadata={"a": "\ud800"})
    with pytest.raises(InputError):
        await world.announce("one", dataset=at("rows.jsonl"), spec=spec)
    assert not [key for key in world.store.held if key.startswith("ingest/inbox/")]


async def test_an_event_whose_dataset_is_gone_when_its_turn_comes_is_in_quarantine(world: World) -> None:
    world.drop("rows.jsonl")
    await world.announce("one", dataset=at("rows.jsonl"))
    del world.datasets.held["rows.jsonl"]
    await world.inbox.make_jobs()
    [about] = await world.quarantined()
    assert (about.kind, about.place, about.final) == ("event", "s3://datasets/rows.jsonl", True)


async def test_an_event_waits_on_the_bus_while_the_inbox_cannot_be_written(world: World) -> None:
    world.drop("rows.jsonl")
    await world.announce("one", dataset=at("rows.jsonl"))
    [key] = [key for key in world.store.held if key.startswith("ingest/inbox/")]
    world.store.faults["create", key] = DENIED
    with pytest.raises(TransientError):
        await world.announce("one", dataset=at("rows.jsonl"))


async def test_an_inbox_that_cannot_be_listed_ends_no_service(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.ingest.inbox.FAILED_PAUSES", _Soon())
    world.drop("rows.jsonl")
    await world.announce("one", dataset=at("rows.jsonl"))
    world.store.faults["list", "ingest/inbox/"] = DENIED
    async with running(world.inbox.run):
        await until(lambda: world.store.calls.count(("list", "ingest/inbox/")) >= 2, "it was tried again")
        world.store.faults.clear()
        await until(world.uploaded, "the event becomes a job")


class _Soon:
    def jittered(self, failures: int) -> float:
        return 0.01


# --- notifications ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("operation", ["stat", "describe"])
async def test_a_notification_of_an_object_that_cannot_be_read_stops_no_other(
    world: World, operation: str, error: Exception
) -> None:
    names = [f"bad {number}.jsonl" for number in range(8)]  # more than there are workers
    world.drop(*names, "good.jsonl")
    world.store.faults.update({(operation, name): error for name in names})
    async with running(world.notifications.run):
        for junk in (b"\xff", b"[" * 100_000, b'{"Records": [{"eventName": 1}]}', b'{"a": Infinity}'):
            await world.notifications.received(junk)
        await world.notifications.received(message(*names, *ODD_KEYS[:15]))
        await world.notifications.received(message("good.jsonl"))
        await until(world.uploaded, "the notification behind them is worked on")
    assert world.uploaded() == ["good.jsonl"]


def running(loop: Callable[[], Awaitable[None]]) -> contextlib.AbstractAsyncContextManager[None]:
    @contextlib.asynccontextmanager
    async def run():  # type: ignore[no-untyped-def]
        task = asyncio.ensure_future(loop())
        try:
            yield
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return run()

"""Files that are not in a training format become datasets: once for each drop, and beside the others."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from services.ingest.requests import Requests
from services.ingest.sources.child import mine_apart
from services.ingest.sources.limits import Limits
from services.ingest.sources.report import MiningReport
from shared import ids
from shared.errors import InputError, TransientError
from shared.events import Asked, DatasetPointer, Job, Origin, Reference
from shared.stages.ledger import asked_key
from tests.support.data.job_history import JobHistory
from tests.support.waiting import until
from tests.unit.ingest.world import World, mine_here

CSV = b"ticket_id,customer_message,agent_response,satisfaction_score\n1,Hi,Hello,5\n2,Bye,No,1\n"
SETTINGS = b"source: {filter: satisfaction_score >= 4, system: Be kind.}\n"
NATIVE = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "ticket": 7}\n'


@pytest.fixture
def world() -> World:
    return World()


def rows(world: World, job: dict[str, Any], which: str = "dataset") -> list[dict[str, Any]]:
    """The rows that the validator reads."""
    reference = Reference.model_validate(job["prepared"][which])
    held = world.store.held[reference.key]
    assert held.etag == reference.etag
    return [json.loads(line) for line in held.data.splitlines()]


async def test_a_table_with_settings_beside_it_becomes_the_dataset_of_its_job(world: World) -> None:
    world.drop("team/Tickets.csv", data=CSV, job=SETTINGS)
    await world.sweep(2)
    [job] = world.manifests()
    assert job["dataset"]["key"] == "team/Tickets.csv"
    assert job["alias"] == "team-tickets"
    assert rows(world, job) == [
        {
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"},
            ],
            "metadata": {"source_row": "2"},
        }
    ]
    assert world.uploaded() == ["team/Tickets.csv"]
    said = " ".join(job["notes"])
    assert "user from customer_message" in said and "1 do not meet the filter (line 3)" in said
    report = json.loads(world.store.held[job["prepared"]["report"]["key"]].data)
    assert report["dataset"]["report"]["examples"] == 1


@pytest.mark.parametrize("key", ["a.csv", "b.jsonl.gz", "c.tsv"])
def test_a_sidecar_has_the_name_of_the_dataset_without_its_endings(key: str, world: World) -> None:
    world.drop(key, job=b"")
    assert f"{key[0]}.job.yaml" in world.datasets.held


async def test_rows_of_a_training_format_take_no_detour(world: World) -> None:
    async def never(*args: Any, **given: Any) -> MiningReport:
        raise AssertionError("there is nothing to convert")

    world.mine = never
    world.start()
    world.drop("chat.jsonl", data=NATIVE)
    world.drop("broken.jsonl", data=b"{oops\n")
    world.drop("unknown.jsonl", data=b'{"mesages": []}\n')
    await world.sweep(2)
    assert len(world.manifests()) == 3
    assert all(job["prepared"] is None for job in world.manifests())


async def test_settings_for_the_rows_reach_a_training_format_too(world: World) -> None:
    world.drop(
        "chat.jsonl", data=NATIVE + NATIVE.replace(b"7", b"8"), job=b"source: {filter: ticket == 7, system: S}\n"
    )
    await world.sweep(2)
    [made] = rows(world, world.manifests()[0])
    assert made["messages"][0] == {"role": "system", "content": "S"}


async def test_a_file_that_nobody_understands_fails_its_job_with_the_remedy(world: World) -> None:
    world.drop("odd.csv", data=b"alpha,beta\n1,2\n")
    await world.sweep(3)
    [failed] = world.failed()
    assert failed.stage == "ingest"
    assert "the columns alpha, beta" in failed.message and "source: {columns:" in failed.message
    assert len(world.manifests()) == 1
    assert await world.quarantined() == []


async def test_a_kill_half_way_costs_nothing_but_time(world: World) -> None:
    world.drop("tickets.csv", data=CSV)

    async def killed(*args: Any, **given: Any) -> MiningReport:
        raise TransientError("the process that reads the file was killed (signal 9)")

    world.mine = killed
    world.start()
    await world.sweep(2)
    assert world.manifests() == []
    world.mine = mine_here
    world.start()
    await world.sweep(2)
    [job] = world.manifests()
    assert len(rows(world, job)) == 2


async def test_the_same_drop_is_converted_once_and_is_one_job(world: World) -> None:
    converted = 0

    async def counting(*args: Any, **given: Any) -> MiningReport:
        nonlocal converted
        converted += 1
        return await mine_here(*args, **given)

    world.mine = counting
    world.start()
    world.drop("tickets.csv", data=CSV)
    await world.sweep(2)
    for key in [key for key in world.store.held if key.startswith("ingest/seen/")]:
        del world.store.held[key]  # the janitor, or a ledger that lost its markers
    world.start()
    await world.sweep(2)
    await world.announce("again", dataset=DatasetPointer(bucket="datasets", key="tickets.csv"))
    await world.inbox.make_jobs()
    assert (len(world.manifests()), converted) == (1, 1)


async def test_a_long_conversion_holds_up_nobody(world: World) -> None:
    going_on = asyncio.Event()

    async def slow(path: Path, out: Path, **given: Any) -> MiningReport:
        await going_on.wait()
        return await mine_here(path, out, **given)

    world.mine, world.patience = slow, 0.0
    world.start()
    world.drop("large.csv", data=CSV)
    await world.sweep(2)
    world.drop("small.jsonl", data=NATIVE)
    await world.sweep(2)
    await until(lambda: world.uploaded() == ["small.jsonl"], "the small file is announced")
    await world.sweep(2)
    going_on.set()
    await until(lambda: world.uploaded() == ["small.jsonl", "large.csv"], "the large one, too")
    assert len(world.manifests()) == 2


async def test_an_event_of_another_program_may_name_a_table_and_a_validation_file(world: World) -> None:
    world.datasets.add("_in/train.csv", CSV)
    world.datasets.add("_in/valid.csv", CSV)
    world.datasets.add("_in/native.jsonl", NATIVE)
    at = {
        name: DatasetPointer(bucket="datasets", key=f"_in/{name}")
        for name in ("train.csv", "valid.csv", "native.jsonl")
    }
    await world.announce("one", dataset=at["train.csv"], validation_file=at["valid.csv"])
    await world.announce("two", dataset=at["native.jsonl"], validation_file=at["valid.csv"])
    await world.inbox.make_jobs()
    both, one = sorted(world.manifests(), key=lambda job: job["dataset"]["key"], reverse=True)
    assert len(rows(world, both)) == len(rows(world, both, "validation_file")) == 2
    assert one["prepared"]["dataset"] is None
    assert len(rows(world, one, "validation_file")) == 2


async def test_a_validation_file_that_nobody_understands_is_named(world: World) -> None:
    world.datasets.add("_odd.csv", b"alpha,beta\n1,2\n")
    world.drop("chat.jsonl", data=NATIVE, job=b"validation_file: {bucket: datasets, key: _odd.csv}\n")
    await world.sweep(2)
    assert [(failed.code, failed.param) for failed in world.failed()] == [
        ("invalid_validation_file", "validation_file")
    ]


async def test_a_file_of_the_files_api_in_another_form_is_converted_for_its_job(world: World) -> None:
    content = world.store.add("files/file-1/content", b'{"instruction": "Do", "input": "", "output": "Done"}\n')
    job = JobHistory().job
    job_id = ids.job_id(content.bucket, content.key, content.sha256, job.spec)
    asked = job.model_copy(update={"job_id": job_id, "dataset": content, "origin": Origin(kind="api")})
    request = Asked(job=asked, key_id="root", request="0" * 64)
    await world.store.create(asked_key(job_id), request.model_dump_json().encode())
    requests = Requests(world.store, world.bus, world.preparation)
    await requests.make_jobs()
    [made] = map(Job.model_validate, world.manifests())
    assert (made.job_id, made.dataset) == (job_id, content)
    assert json.loads(world.store.held[made.rows.key].data)["messages"][1]["content"] == "Done"


# --- the process -----------------------------------------------------------------------------------------------------


async def apart(tmp_path: Path, data: bytes, memory_bytes: int = 2**31, name: str = "a.csv") -> MiningReport:
    path = tmp_path / name
    path.write_bytes(data)
    return await mine_apart(
        path,
        tmp_path / "rows.jsonl",
        name=name,
        source=None,
        limits=Limits(),
        memory_bytes=memory_bytes,
        on_progress=lambda rows, share: None,
    )


async def test_the_process_reports_or_refuses(tmp_path: Path) -> None:
    assert (await apart(tmp_path, CSV)).examples == 2
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 2
    with pytest.raises(InputError, match="the columns alpha, beta"):
        await apart(tmp_path, b"alpha,beta\n1,2\n")


async def test_a_file_that_takes_too_much_memory_is_refused_with_words(tmp_path: Path) -> None:
    table = CSV + b"3,Again,Yes,5\n" * 2_000_000
    with pytest.raises(InputError, match="TUNESTREAM_INGEST__MEMORY_BYTES"):
        await apart(tmp_path, table, memory_bytes=2**20)

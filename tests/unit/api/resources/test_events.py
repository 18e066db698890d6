"""/jobs/{id}/events as a client sees it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.data.job_history import T0, JobHistory
from tests.unit.api.conftest import Api


async def test_events_newest_first_or_oldest_first(api: Api, history: JobHistory) -> None:
    path = f"/jobs/{history.job_id}/events"
    newest, oldest = await api.get(path, limit=100), await api.get(path, limit=100, order="asc")
    assert newest["data"] == oldest["data"][::-1]
    first, last = oldest["data"][0], oldest["data"][-1]
    assert first["message"] == f"Created fine-tuning job: {history.job_id}"
    assert last["message"] == "The job has successfully completed"
    assert set(first) == {"id", "object", "created_at", "level", "type", "message", "data"}
    assert (first["object"], first["created_at"]) == ("job.event", int(T0))
    assert all(event["id"].startswith("ftevent-") for event in oldest["data"])
    steps = [event["data"]["step"] for event in oldest["data"] if event["type"] == "metrics"]
    assert steps == [1, 2, 3]


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_of_events_hold_each_once(api: Api, history: JobHistory, order: str) -> None:
    path = f"/jobs/{history.job_id}/events"
    whole = (await api.get(path, limit=1000, order=order))["data"]
    seen: list[Any] = []
    page = await api.get(path, limit=4, order=order)
    while page["has_more"]:
        seen += page["data"]
        page = await api.get(path, limit=4, order=order, after=page["last_id"])
    assert seen + page["data"] == whole


async def test_a_client_that_polls_sees_every_event_once_however_late_it_comes(api: Api) -> None:
    history = JobHistory()
    await history.accept(api.objects)
    await api.projection.reconcile()
    api.objects.available = False  # so that the events alone tell it
    api.clock.now = T0 + 41  # while it happens
    late, path = [*history.events[3:], *history.events[:3]], f"/jobs/{history.job_id}/events"
    seen: list[str] = []
    for told in late:
        await api.take([told, told])
        page = await api.get(path, order="asc", limit=100, **({"after": seen[-1]} if seen else {}))
        seen += [event["id"] for event in page["data"]]
    everything = [event["id"] for event in (await api.get(path, order="asc", limit=100))["data"]]
    assert seen == everything
    assert len(set(seen)) == len(seen)


async def test_a_loss_that_is_not_a_number_is_null(api: Api, training_job: JobHistory) -> None:
    # what an older trainer sent: null, because JSON has no NaN
    data = {"train_loss": 0.5, "grad_norm": None}
    await api.projection.take(training_job.progress("trainer", step=9, data=data), training_job.events[0].delivery)
    told = await api.get(f"/jobs/{training_job.job_id}/events", limit=100)
    assert {"step": 9, "train_loss": 0.5, "grad_norm": None} in [event["data"] for event in told["data"]]
    assert (await api.get(f"/jobs/{training_job.job_id}"))["stages"]["trainer"]["data"]["grad_norm"] is None

"""Whatever an event holds, it breaks nothing for others: it is applied or refused, never delivered again for ever."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import TransientError
from shared.events import JobFailed, JobProgress
from tests.support.data.job_history import T0, JobHistory, delivery
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore
from tests.unit.api.conftest import Api

Told = list[tuple[dict[str, Any], float | None]]
"""The fields of events, and the time that each came with."""
HISTORY = JobHistory()
text = st.text(max_size=30) | st.sampled_from(["\ud800", "\x00", "../..", "trainer", "validate", "inference"])
numbers = st.floats() | st.integers() | st.sampled_from([10**4000, -(10**400), float("nan"), float("inf")])
values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
keys = text | st.sampled_from(["train_loss", "valid_loss", "since", "seconds", "cause", "step"])
progress = st.fixed_dictionaries(
    {"stage": text, "state": text | st.sampled_from(["started", "waiting", "retrying", "checkpoint", "not_promoted"])},
    optional={
        "attempt": st.integers(-5, 10**30),
        "message": text,
        "step": st.integers(-(10**30), 10**30),
        "total_steps": st.integers(),
        "eta_seconds": st.floats(),
        "data": st.dictionaries(keys, values, max_size=4),
    },
)
failed = st.fixed_dictionaries({"stage": text, "code": text, "message": text}, optional={"param": text})
times = st.none() | st.floats(-1e11, 3e11)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(progress | failed, times), min_size=1, max_size=5), st.booleans())
def test_no_event_breaks_the_list_or_the_job(events: Told, store_away: bool) -> None:
    async def call(folder: Path) -> None:
        clock = Clock(T0 + 60)
        api = Api(folder / "api.sqlite3", FakeStore(clock=clock), FakeBus(), clock)
        api.start()
        try:
            await HISTORY.write_documents(api.objects, until="validate")
            await api.projection.reconcile()
            api.objects.available = not store_away
            for number, (fields, at) in enumerate(events):
                kind = JobProgress if "state" in fields else JobFailed
                try:
                    event = kind.model_validate({"job_id": HISTORY.job_id, **fields})
                    told = replace(delivery(event, f"ftevent-{number}", T0), time=at)
                    await api.projection.take(event, told)
                except TransientError as error:
                    raise AssertionError("it would be delivered again for ever") from error
                except Exception:  # a dead letter: the bus goes on with the next one
                    continue
            for path in ("/jobs", f"/jobs/{HISTORY.job_id}", f"/jobs/{HISTORY.job_id}/events"):
                answer = await api.client.get(path)
                assert answer.status_code == 200, answer.text
            assert (await api.get("/jobs"))["data"][0]["id"] == HISTORY.job_id
            with contextlib.suppress(TransientError):
                await api.projection.reconcile()
        finally:
            await api.stop()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(call(Path(folder)))

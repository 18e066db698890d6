"""The fake bus behaves like the real one."""

from __future__ import annotations

import inspect

import pytest

from shared.errors import TransientError
from shared.events import JobControl, JobFailed
from shared.kafka.bus import Bus
from tests.contract.bus_suite import BusSuite
from tests.support.broker import Broker
from tests.support.fakes.bus import FakeBroker, FakeBus

CANCEL = JobControl(job_id="ftjob-1", action="cancel")


class TestFakeBus(BusSuite):
    @pytest.fixture
    def broker(self) -> Broker:
        return FakeBroker()


def test_every_method_is_replaced_and_has_the_same_parameters() -> None:
    real = {name: method for name, method in vars(Bus).items() if not name.startswith("_")}
    assert set(real) <= set(vars(FakeBus))
    for name, method in real.items():
        if inspect.isfunction(method):
            assert list(inspect.signature(vars(FakeBus)[name]).parameters) == list(inspect.signature(method).parameters)


async def test_published_events_are_remembered_even_if_nobody_listens() -> None:
    bus = FakeBus()
    await bus.publish(CANCEL, ce_id="ftevent-1", subject="ftjob-1")
    assert bus.events() == bus.events(JobControl) == [CANCEL]
    assert bus.events(JobFailed) == []
    assert (bus.published[0].ce_id, bus.published[0].subject) == ("ftevent-1", "ftjob-1")


async def test_an_outage_publishes_nothing() -> None:
    bus = FakeBus()
    bus.available = False
    with pytest.raises(TransientError):
        await bus.publish(CANCEL, ce_id="ftevent-1")
    assert bus.published == [] and not bus.fake_broker.topics


async def test_a_lost_acknowledgement_leaves_the_event_published() -> None:
    class Lossy(FakeBus):
        async def after(self, event: object) -> None:
            raise TransientError("the acknowledgement was lost")

    bus = Lossy()
    with pytest.raises(TransientError):
        await bus.publish(CANCEL, ce_id="ftevent-1")
    assert bus.events() == [CANCEL]

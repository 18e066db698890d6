"""An alias has exactly one current version, however many replicas write at the same time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.domain import deployments
from services.inference.registry.aliases import Aliases
from shared.events import Deployed, Deployment
from shared.stages.ledger import deployment_key
from tests.support.fakes.store import FakeStore


def version(number: int) -> Deployed:
    return Deployed(model=f"model-{number}", job_id=f"job-{number}", at=float(number))


class SlowStore(FakeStore):
    """Lets others run before every answer, as a store on a network does."""

    async def after(self, operation: str, key: str) -> None:
        await asyncio.sleep(0)


async def test_thirty_promotions_at_once_are_all_kept_and_one_is_current() -> None:
    objects = SlowStore()
    replicas = [Aliases(objects) for _ in range(3)]

    await asyncio.gather(*(replicas[number % 3].promote("support", version(number)) for number in range(30)))

    found = await objects.get(deployment_key("support"))
    assert found is not None
    written = Deployment.model_validate_json(found[0])
    assert sorted(each.job_id for each in written.history) == sorted(f"job-{number}" for number in range(30))
    assert written.current == written.history[0]
    assert written.previous == written.history[1]


async def test_two_concurrent_rollbacks_roll_back_once() -> None:
    objects = SlowStore()
    one, other = Aliases(objects), Aliases(objects)
    for number in (1, 2):
        await one.promote("support", version(number))

    await asyncio.gather(one.roll_back("support"), other.roll_back("support"))

    found = await Aliases(objects).get("support")
    assert found is not None and found.current.model == "model-1"


Step = tuple[str, int]
steps = st.lists(st.tuples(st.sampled_from(["promote", "deploy", "roll back"]), st.integers(0, 4)), max_size=30)


@given(steps)
def test_any_sequence_of_changes_keeps_a_document_sound(sequence: list[Step]) -> None:
    document: Deployment | None = None
    promoted: set[str] = set()
    for time, (action, number) in enumerate(sequence):
        before, new = document, version(number).model_copy(update={"at": float(time)})
        if action == "roll back":
            if before is None or before.previous is None:
                continue
            document = deployments.roll_back(before, float(time))
            assert (document.current.model, document.previous and document.previous.model) == (
                before.previous.model,
                before.current.model,
            )
        elif action == "deploy":
            document = deployments.deploy(before, new, "support")
            assert document.current.model == new.model
        else:
            document = deployments.promote(before, new, "support")
            assert document is before or new.job_id not in promoted
        promoted |= {new.job_id} if action != "roll back" else set()
        assert document.history[0] == document.current
        assert document.previous is None or document.previous.model != document.current.model


def test_rolling_back_the_only_version_is_refused() -> None:
    only = deployments.deploy(None, version(1), "support")

    with pytest.raises(deployments.NoPrevious):
        deployments.roll_back(only, 2.0)

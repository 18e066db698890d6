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
    before = await one.read("support")
    assert before is not None
    target = deployments.rollback_target(before, None, None)
    assert target is not None

    await asyncio.gather(one.roll_back(before, target), other.roll_back(before, target))

    found = await Aliases(objects).get("support")
    assert found is not None and found.current.model == "model-1"
    assert len(found.history) == 3


async def test_the_same_alias_of_two_projects_is_two_and_the_models_of_all_are_needed() -> None:
    objects = FakeStore()
    aliases, other = Aliases(objects), Aliases(objects)
    for number, project in ((1, "default"), (2, "default"), (3, "one"), (4, "two")):
        await aliases.deploy("Support", version(number), project=project)

    for each in (aliases, other):
        found = [await each.get("support", project) for project in ("default", "one", "two", "three")]
        assert [each and (each.project, each.current.model) for each in found] == [
            ("default", "model-2"),
            ("one", "model-3"),
            ("two", "model-4"),
            None,
        ]
        assert [each.current.model for each in await other.listed("one")] == ["model-3"]
        assert await each.models() == {"model-1", "model-2", "model-3", "model-4"}
    before = await other.read("SUPPORT", "one")
    assert before is not None and before.alias == "support"
    await other.deploy("SUPPORT", version(5), "model-3", project="one")
    back = await other.read("support", "one")
    assert back is not None and (back.project, back.previous) == ("one", before.current)
    await other.roll_back(back, before.current)
    assert await other.models() == {f"model-{number}" for number in range(1, 6)}
    found = await other.read("support")
    assert found is not None and found.current.model == "model-2"


async def test_the_document_of_an_older_version_is_of_the_default_project() -> None:
    objects = FakeStore()
    objects.add("deployments/support.json", b'{"alias":"support","current":{"model":"old","job_id":"","at":1}}')
    # the key decides, whatever a document says of itself
    objects.add(
        "deployments/one/support.json",
        b'{"alias":"support","project":"two","current":{"model":"new","job_id":"","at":1}}',
    )
    found = {each.project: each.current.model for each in await Aliases(objects).all()}
    assert found == {"default": "old", "one": "new"}
    after = await Aliases(objects).deploy("support", version(1))
    assert after.previous is not None and (after.project, after.previous.model) == ("default", "old")
    read = await Aliases(objects).get("support", "one")
    assert read is not None and (read.project, read.current.model) == ("one", "new")


Step = tuple[str, int]
steps = st.lists(st.tuples(st.sampled_from(["promote", "deploy", "roll back"]), st.integers(0, 4)), max_size=30)


def not_again(document: Deployment, rolled_back: Deployed) -> bool:
    """Rolling back again, as far as that leads, never makes this version current."""
    while True:
        try:
            target = deployments.rollback_target(document, None, document.current.model)
        except deployments.NoPrevious:
            return True
        assert target is not None
        if target == rolled_back:
            return False
        document = deployments.roll_back(document, target, document.current.model, target.at)


@given(steps)
def test_any_sequence_of_changes_keeps_a_document_sound(sequence: list[Step]) -> None:
    document: Deployment | None = None
    promoted: set[str] = set()
    for time, (action, number) in enumerate(sequence):
        before, new = document, version(number).model_copy(update={"at": float(time)})
        if action == "roll back":
            if before is None:
                continue
            try:
                target = deployments.rollback_target(before, None, before.current.model)
            except deployments.NoPrevious:
                continue
            assert target is not None and target in before.history
            document = deployments.roll_back(before, target, before.current.model, float(time))
            assert (document.current.model, document.previous) == (target.model, before.current)
            assert deployments.rollback_target(document, None, before.current.model) is None, "a repeated call"
            assert not_again(document, before.current), "what was rolled back does not come back by rolling back"
        elif action == "deploy":
            document = deployments.deploy(before, new, "support")
            assert document.current.model == new.model
        else:
            document = deployments.promote(before, new, "support")
            assert document is before or new.job_id not in promoted
        promoted |= {new.job_id} if action != "roll back" else set()
        assert document.history[0] == document.current
        assert document.previous is None or document.previous.model != document.current.model


def named(*numbers: int) -> Deployment:
    """An alias to which these versions were deployed, one after another."""
    document: Deployment | None = None
    for time, number in enumerate(numbers):
        document = deployments.deploy(document, version(number).model_copy(update={"at": float(time)}), "support")
    assert document is not None
    return document


def back(document: Deployment, to: str | None = None, expected: str | None = None) -> Deployment:
    target = deployments.rollback_target(document, to, expected)
    return document if target is None else deployments.roll_back(document, target, document.current.model, 99.0)


def test_rolling_back_the_only_version_is_refused() -> None:
    with pytest.raises(deployments.NoPrevious):
        back(named(1))


def test_rolling_back_again_leads_further_back_and_never_to_what_was_rolled_back() -> None:
    once = back(named(1, 2, 3))
    twice = back(once, expected="model-2")

    assert [once.current.model, twice.current.model] == ["model-2", "model-1"]
    with pytest.raises(deployments.NoPrevious):
        back(twice, expected="model-1")


def test_rolling_back_undoes_a_deployment_by_hand_of_an_older_version() -> None:
    assert back(named(1, 2, 1)).current.model == "model-2"


def test_rolling_back_after_a_new_version_leads_to_what_was_in_use_before_it() -> None:
    document = deployments.deploy(back(named(1, 2)), version(3), "support")

    assert back(document).current.model == "model-1"
    assert back(back(named(1, 2, 3)), to="model-3").current.model == "model-3", "who names it gets it"


def test_what_an_older_version_has_written_can_be_rolled_back() -> None:
    old = named(1, 2).model_copy(update={"history": ()})

    assert back(old).current.model == "model-1"


@pytest.mark.parametrize(("numbers", "job", "replaced"), [((1, 2), 2, "model-1"), ((1, 2), 1, None), ((1,), 1, None)])
def test_what_a_promotion_replaced_stays_the_same_after_a_rollback(
    numbers: tuple[int, ...], job: int, replaced: str | None
) -> None:
    document = named(*numbers)
    after = back(document) if len(numbers) > 1 else document

    assert deployments.replaced_by(document, f"job-{job}") == replaced
    assert deployments.replaced_by(after, f"job-{job}") == replaced

"""What goes into quarantine stays as it was put there, and can be marked as solved."""

from __future__ import annotations

from shared.events import Quarantined
from shared.stages import quarantine
from tests.support.fakes.store import FakeStore

ABOUT = Quarantined(kind="manifest", place="jobs/ftjob-a/job.json", field="spec.seed", reason="null", at=1.0)


async def test_what_is_there_keeps_its_reason_and_its_time() -> None:
    store = FakeStore()
    assert await quarantine.hold(store, "ftjob-a", ABOUT)
    assert not await quarantine.hold(store, "ftjob-a", ABOUT.model_copy(update={"reason": "other", "at": 2.0}))
    assert await quarantine.read_all(store) == {"manifest/ftjob-a": ABOUT}
    assert list(store.held) == ["quarantine/manifest/ftjob-a.json"]


async def test_what_was_tried_again_may_become_final() -> None:
    store = FakeStore()
    final = ABOUT.model_copy(update={"reason": "archived", "at": 2.0})
    await quarantine.hold(store, "a", ABOUT.model_copy(update={"final": False}))
    await quarantine.hold(store, "a", final)
    await quarantine.hold(store, "a", ABOUT.model_copy(update={"final": False}))
    assert await quarantine.read_all(store) == {"manifest/a": final}


async def test_solved_once_with_the_time_of_the_store() -> None:
    now = [10.0]
    store = FakeStore(clock=lambda: now[0])
    await quarantine.hold(store, "a", ABOUT)
    for _ in range(2):
        await quarantine.solve(store, "manifest", "a")
        now[0] += 5
    await quarantine.solve(store, "manifest", "unknown")
    [about] = (await quarantine.read_all(store, kind="manifest")).values()
    assert about.solved_at == 10.0
    assert await quarantine.read_all(store, kind="drop") == {}


def test_texts_of_others_are_cut_and_can_be_stored() -> None:
    assert quarantine.short("a\ud800b") == "a\\ud800b"
    assert len(quarantine.short("x" * 5000)) == quarantine.MOST_CHARS

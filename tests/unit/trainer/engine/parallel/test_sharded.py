"""A training whose processes divide the base among them is the training of one process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from services.trainer.domain.plan import Plan
from services.trainer.engine.loop import Interrupted
from services.trainer.engine.messages import ProcessLost
from tests.support.data.micro_base import write_rows
from tests.unit.trainer.engine.parallel.test_peers import running
from tests.unit.trainer.engine.parallel.test_together import assert_alike
from tests.unit.trainer.engine.test_training import losses, stop_after, train

pytestmark = pytest.mark.torch


def test_a_run_goes_on_with_a_divided_base_and_then_with_a_whole_one(
    make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    """One process begins, two go on until one of them is killed, and one ends it. The last batch of an epoch has one
    row, so that a process has none, and goes along."""
    plan = make_plan(lora={"r": 8, "dropout": 0.0}, eval_every=3, checkpoint_every=1)
    rows = [json.loads(line) for line in Path(plan.train).read_text().splitlines()]
    write_rows(Path(plan.train), rows[:17])
    train(plan, tmp_path / "one")

    def goes_on(folder: str, **changes: object) -> Plan:
        values = {**plan.model_dump(), "resume_from": str(tmp_path / folder / "resume"), **changes}
        return Plan.model_validate(values)

    with pytest.raises(Interrupted):
        train(plan, tmp_path / "first", stop=stop_after(2))
    calls = iter(range(1, 10**6))

    def kill_later() -> bool:
        if next(calls) == 6:
            [peer] = running()
            peer.kill()
        return False

    divided = goes_on("first", gpus=2, switches={"sharded": True})
    with pytest.raises(ProcessLost, match=r"process 2 of the 2 .* signal 9"):
        train(divided, tmp_path / "two", stop=kill_later)
    assert not running()
    assert losses(tmp_path / "two")[-1]["step"] in (7, 8)
    document = json.loads((tmp_path / "two" / "hyperparameters.json").read_bytes())
    assert document["sharded"] == {"value": True, "reason": "as set"}
    train(goes_on("two"), tmp_path / "last")
    assert_alike(tmp_path / "last", tmp_path / "one")

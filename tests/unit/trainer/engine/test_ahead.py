"""The first micro-batch of a step is launched before the numbers of the step before it are read: nobody notices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from services.trainer.domain.plan import Plan
from services.trainer.engine.forward import Forward
from services.trainer.engine.loop import Interrupted, Loop
from services.trainer.engine.loss import Supervised
from services.trainer.engine.messages import StepRow
from services.trainer.engine.model import memory
from services.trainer.engine.model import update as module
from services.trainer.engine.model.update import Watch, adamw, update
from services.trainer.engine.report.reporter import Reporter
from services.trainer.engine.step import Stepper
from services.trainer.engine.validation import Validator
from tests.support.data.micro_base import write_rows
from tests.unit.trainer.engine.test_training import losses, stop_after, train
from tests.unit.trainer.engine.waits import Waits

pytestmark = pytest.mark.torch

MakePlan = Callable[..., Plan]
LORA = {"r": 8, "dropout": 0.3}
ONE_ROW, MORE_ROWS = memory.Fit(micro_tokens=0, recompute=False), memory.Fit(micro_tokens=1024, recompute=False)


@pytest.fixture
def at_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many micro-batches were computed in training whenever a row is reported."""
    computed, counts = 0, []
    backward, step = Stepper.backward, Reporter.step

    def counted(stepper: Stepper, batch: Any, weight: int) -> Any:
        nonlocal computed
        computed += 1
        return backward(stepper, batch, weight)

    def noted(reporter: Reporter, row: StepRow) -> None:
        counts.append(computed)
        step(reporter, row)

    monkeypatch.setattr(Stepper, "backward", counted)
    monkeypatch.setattr(Reporter, "step", noted)
    return counts


def without(plan: Plan, out: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
    """The run of a plan in which each step begins when the one before is reported."""
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_goes_on", lambda *_: False)
        train(plan, out, **more)


def adapter(out: Path) -> bytes:
    return (out / "adapter" / "adapter_model.safetensors").read_bytes()


def pairs(tmp_path: Path) -> dict[str, Any]:
    rows = [
        {
            "input": {"messages": [{"role": "user", "content": f"Where is order {n}?"}]},
            "preferred_completion": [{"role": "assistant", "content": "On its way."}],
            "non_preferred_completion": [{"role": "assistant", "content": f"Who knows {n}?"}],
        }
        for n in range(16)
    ]
    train = str(write_rows(tmp_path / "pairs.jsonl", rows))
    return {"method": "dpo", "format": "preference", "train": train, "validation": None}


@pytest.mark.parametrize("fit", [ONE_ROW, MORE_ROWS], ids=["several", "one"])
@pytest.mark.parametrize("method", ["supervised", "dpo"])
def test_a_step_begins_before_the_last_is_reported_and_has_the_same_losses(
    make_plan: MakePlan,
    tmp_path: Path,
    at_rows: list[int],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    fit: memory.Fit,
):
    monkeypatch.setattr(memory, "ON_CPU", (fit,))
    plan = make_plan(lora=LORA, eval_every=5, **(pairs(tmp_path) if method == "dpo" else {}))
    without(plan, tmp_path / "without", monkeypatch)
    each = at_rows.copy()
    at_rows.clear()
    train(plan, tmp_path / "with")
    before = [count - each[-1] for count in at_rows]
    assert before[-1] == each[-1], "no micro-batch is computed twice"
    ahead = [step for step, (one, other) in enumerate(zip(before, each, strict=True), 1) if one == other + 1]
    assert [step for step in range(1, len(each) + 1) if step not in ahead] == [
        step for step, row in enumerate(losses(tmp_path / "with"), 1) if "valid_loss" in row or row["epoch"] % 1 == 0
    ]
    assert losses(tmp_path / "with") == losses(tmp_path / "without")
    assert adapter(tmp_path / "with") == adapter(tmp_path / "without")


@pytest.mark.parametrize("fit", [ONE_ROW, MORE_ROWS], ids=["several", "one"])
def test_what_nobody_has_foreseen_between_two_steps_changes_nothing(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fit: memory.Fit
):
    monkeypatch.setattr(memory, "ON_CPU", (fit,))
    plan = make_plan(lora=LORA, checkpoint_every=3, eval_every=2)
    without(plan, tmp_path / "without", monkeypatch)
    monkeypatch.setattr(Loop, "_goes_on", lambda *_: True)
    train(plan, tmp_path / "with")
    assert losses(tmp_path / "with") == losses(tmp_path / "without")
    for run in ("without", "with"):
        resumed = plan.model_copy(update={"resume_from": str(tmp_path / run / "resume" / "step-9")})
        train(resumed, tmp_path / f"{run}-resumed")
        assert losses(tmp_path / f"{run}-resumed") == losses(tmp_path / "without")
        assert adapter(tmp_path / f"{run}-resumed") == adapter(tmp_path / "without")


@pytest.mark.parametrize("asked", [27, 29])
def test_who_is_asked_to_stop_while_a_step_has_begun_takes_it_back(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int
):
    monkeypatch.setattr(memory, "ON_CPU", (ONE_ROW,))  # 4 micro-batches a step
    without(make_plan(lora=LORA), tmp_path / "whole", monkeypatch)
    with pytest.raises(Interrupted):
        train(make_plan(lora=LORA), tmp_path / "first", stop=stop_after(asked))
    assert len(losses(tmp_path / "first")) == asked // 4
    train(make_plan(lora=LORA, resume_from=str(tmp_path / "first" / "resume")), tmp_path / "second")
    assert losses(tmp_path / "second") == losses(tmp_path / "whole")


def test_steps_without_a_finite_loss_change_nothing_though_the_next_has_begun(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sums, taken = Supervised.sums, 0

    def broken(self: Supervised, forward: Forward, batch: Any) -> Any:
        nonlocal taken
        taken += 1
        found = sums(self, forward, batch)
        return found._replace(loss=found.loss * float("nan")) if taken in (1, 4, 5, 20) else found

    monkeypatch.setattr(Supervised, "sums", broken)
    plan = make_plan(eval_every=10)
    without(plan, tmp_path / "without", monkeypatch)
    taken = 0
    result = train(plan, tmp_path / "with")
    rows = losses(tmp_path / "with")
    assert [row["step"] for row in rows if row.get("skipped")] == [1, 4, 5, 20]
    assert (result.skipped_steps, result.diverged_at) == (4, None)
    assert rows == losses(tmp_path / "without")
    assert adapter(tmp_path / "with") == adapter(tmp_path / "without")


@pytest.mark.parametrize("once", [True, False])
def test_memory_that_runs_out_for_a_step_that_begins_early_is_found_when_it_is_taken(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, once: bool
):
    monkeypatch.setattr(memory, "ON_CPU", (MORE_ROWS, ONE_ROW))
    plan = make_plan(lora=LORA, eval_every=5)
    train(plan, tmp_path / "whole")
    sums, failed, rows = Supervised.sums, [], []
    step = Reporter.step

    def short_of_memory(self: Supervised, forward: Forward, batch: Any) -> Any:
        found = sums(self, forward, batch)
        if len(rows) >= 6 and batch.items > 1 and not (once and failed):
            failed.append(len(rows))
            found.loss.backward()  # part of a gradient is there already
            raise torch.cuda.OutOfMemoryError
        return found

    monkeypatch.setattr(Supervised, "sums", short_of_memory)
    monkeypatch.setattr(Reporter, "step", lambda self, row: (rows.append(row), step(self, row)))
    result = train(plan, tmp_path / "short")
    assert failed == ([6] if once else [6, 7])
    assert [lowered.step for lowered in result.lowered] == ([] if once else [8])
    if once:
        assert losses(tmp_path / "short") == losses(tmp_path / "whole")
        assert adapter(tmp_path / "short") == adapter(tmp_path / "whole")
    else:
        assert losses(tmp_path / "short")[:7] == losses(tmp_path / "whole")[:7]
        assert len(losses(tmp_path / "short")) == len(losses(tmp_path / "whole"))


def test_a_validation_that_lowers_the_plan_loses_no_gradient(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory, "ON_CPU", (MORE_ROWS, ONE_ROW))
    sums, full = Validator._sums, [True]

    def short_of_memory(self: Validator, rows: list[int], micro_tokens: int) -> Any:
        if self.memory.fit == MORE_ROWS and full:
            full.clear()
            raise torch.cuda.OutOfMemoryError
        return sums(self, rows, micro_tokens)

    monkeypatch.setattr(Validator, "_sums", short_of_memory)
    without(make_plan(eval_every=3), tmp_path / "without", monkeypatch)
    full.append(True)
    monkeypatch.setattr(Loop, "_goes_on", lambda *_: True)
    train(make_plan(eval_every=3), tmp_path / "with")
    assert losses(tmp_path / "with") == losses(tmp_path / "without")


@pytest.mark.parametrize("between", ["_change", "_begin", "_random_of"])
def test_between_two_steps_no_tensor_is_asked_for_its_value(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, between: str
):
    """A GPU would have to compute it first, and run dry."""
    waits, original = Waits(), getattr(Stepper, between)

    def watched(*arguments: Any) -> Any:
        with waits:
            return original(*arguments)

    with waits:
        assert float(torch.ones(1)) == 1.0
    assert waits.asked, "it would be noticed"
    waits.asked.clear()
    monkeypatch.setattr(Stepper, between, watched)
    train(make_plan(lora=LORA, eval_every=5, hyperparameters={"n_epochs": 1, "batch_size": 4}), tmp_path / "out")
    assert not waits.asked


# --- the update


def test_an_update_that_is_skipped_leaves_everything_as_it_was_and_the_next_ones_go_on():
    def trained(skips: list[int]) -> list[Any]:
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(size)) for size in (7, 4096, 33)]
        optimizer = adamw(parameters, weight_decay=0.1)
        for skip in skips:
            for parameter in parameters:
                parameter.grad = parameter.detach().cos() if not skip else torch.full_like(parameter, float("nan"))
            update(optimizer, 1e-2, torch.tensor(float(skip)))
        moments = [value for parameter in parameters for value in optimizer.state[parameter].values()]
        return [*parameters, *moments]

    assert all(map(torch.equal, trained([1, 0, 0, 1, 1, 0]), trained([0, 0, 0])))


def test_a_step_lasts_from_the_end_of_the_one_before_to_its_own(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    watch = Watch(torch.device("cpu"))
    watch.begin()
    seconds = []
    for computed, launched in ((2.0, 3.0), (4.0, 1.0), (0.5, 0.0)):
        now += computed
        watch.note(torch.tensor([computed]))
        now += launched  # of the next step
        numbers, lasted = watch.read()
        assert numbers == [computed]
        seconds.append(lasted)
    assert seconds == [2.0, 7.0, 1.5]

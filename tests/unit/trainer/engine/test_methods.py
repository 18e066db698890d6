"""Both methods, supervised and DPO: a run that is killed again and again has the losses of an unbroken one, packing
changes no gradient, and a start from an earlier adapter is a start from its answers."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from services.trainer.domain.auto import Choice, Facts, choose
from services.trainer.domain.packing import RowShape
from services.trainer.domain.plan import Plan
from services.trainer.engine import checkpoints
from services.trainer.engine.data.batches import Packer
from services.trainer.engine.data.tokens import Example
from services.trainer.engine.forward import Forward
from services.trainer.engine.loss import Dpo, preferences
from services.trainer.engine.model import memory
from services.trainer.engine.model.adapter import load, set_training, trainable
from services.trainer.engine.model.base import inspect_base
from services.trainer.engine.model.memory import Memory
from tests.support.data.micro_base import write_rows
from tests.unit.trainer.engine.test_training import a_sequence, losses, train

pytestmark = pytest.mark.torch

MakePlan = Callable[..., Plan]
CPU = torch.device("cpu")


class Killed(BaseException):
    """The process ends at once."""


def killed_at(micro_batch: int) -> Callable[[], bool]:
    """A `stop`, called before every micro-batch, that kills the run before the one with this number."""
    calls = iter(range(10**6))

    def stop() -> bool:
        if next(calls) >= micro_batch:
            raise Killed
        return False

    return stop


def pairs(count: int) -> list[dict[str, Any]]:
    """Preference rows of different lengths."""
    return [
        {
            "input": {"messages": [{"role": "user", "content": f"Where is order {n}?" + " please" * (n % 3)}]},
            "preferred_completion": [{"role": "assistant", "content": "On its way" + "!" * (n % 4)}],
            "non_preferred_completion": [{"role": "assistant", "content": "Who knows" + "?" * (n % 2)}],
        }
        for n in range(count)
    ]


@pytest.fixture
def plan_of(make_plan: MakePlan, tmp_path: Path) -> Callable[..., Plan]:
    """A short run by a method."""

    def make(method: str, **changes: Any) -> Plan:
        plan: dict[str, Any] = {"lora": {"r": 8, "dropout": 0.2}, "eval_every": 3}
        if method == "dpo":
            train_file = write_rows(tmp_path / "pairs.jsonl", pairs(18))
            unseen = write_rows(tmp_path / "unseen-pairs.jsonl", pairs(22)[18:])
            plan |= {"method": "dpo", "format": "preference", "train": str(train_file), "validation": str(unseen)}
        return make_plan(**{**plan, **changes})

    return make


def loseable(out: Path, drawn: random.Random) -> None:
    """What a kill may leave: sometimes the newest checkpoint is only half there."""
    newest = checkpoints.newest_complete(out / checkpoints.RESUME)
    if newest is not None and drawn.random() < 0.5:
        (newest / drawn.choice(["adapter.safetensors", checkpoints.COMPLETE])).unlink()


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("method", ["supervised", "dpo"])
def test_a_run_that_is_killed_at_random_steps_has_the_losses_of_an_unbroken_one(
    plan_of: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, seed: int
):
    monkeypatch.setattr(memory, "ON_CPU", (memory.Fit(micro_tokens=100, recompute=False),))  # several a step
    drawn = random.Random(seed)
    asked = {"seed": seed, "checkpoint_every": drawn.choice([1, 2, 3])}
    whole = train(plan_of(method, **asked), tmp_path / "whole")

    resumed: dict[str, Any] = {}
    kills = 0
    while kills < 3 or not resumed:
        out = tmp_path / f"attempt-{kills}"
        with pytest.raises(Killed):
            train(plan_of(method, **asked, **resumed), out, killed_at(drawn.randrange(3, 7)))
        kills += 1
        loseable(out, drawn)
        torch.manual_seed(drawn.randrange(10**6))  # whatever the process has drawn meanwhile
        if checkpoints.newest_complete(out / checkpoints.RESUME) is not None:
            resumed = {"resume_from": str(out / checkpoints.RESUME)}
    last = train(plan_of(method, **asked, **resumed), tmp_path / "last")

    assert losses(tmp_path / "last") == losses(tmp_path / "whole")
    assert (last.steps, last.valid_loss, last.trained_tokens) == (whole.steps, whole.valid_loss, whole.trained_tokens)
    one, other = (load_file(tmp_path / run / "adapter" / "adapter_model.safetensors") for run in ("whole", "last"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_dpo_prefers_by_the_adapter_that_it_starts_from_also_when_it_is_continued(
    plan_of: Callable[..., Plan], tmp_path: Path
):
    train(plan_of("supervised"), tmp_path / "earlier")
    start = {"start_from": str(tmp_path / "earlier" / "adapter"), "lora": {"r": 8}, "checkpoint_every": 1}
    train(plan_of("dpo", **start), tmp_path / "whole")
    rows = losses(tmp_path / "whole")
    assert rows[0]["train_loss"] == pytest.approx(math.log(2), rel=1e-5)  # it is its own reference
    assert rows[-1]["train_loss"] < 0.65

    with pytest.raises(Killed):
        train(plan_of("dpo", **start), tmp_path / "first", killed_at(6))
    resumed = {"resume_from": str(tmp_path / "first" / checkpoints.RESUME)}
    train(plan_of("dpo", **start, **resumed), tmp_path / "second")
    assert losses(tmp_path / "second") == rows


def gradients(
    model: Any, items: list[tuple[Example, ...]], references: tuple[float, ...], shape: RowShape, most_tokens: int
) -> tuple[float, int, dict[str, Any]]:
    """Sum of the losses, pairs with a positive margin, and the gradient of all pairs."""
    packer = Packer(items, 0, shape, references)
    set_training(model, True)
    model.zero_grad()
    loss, correct = 0.0, 0
    for micro in packer.plan(range(len(items)), most_tokens):
        sums = Dpo(beta=0.3).sums(Forward(model, linear_head=True), packer.pack(micro))
        sums.loss.backward()
        loss, correct = loss + float(sums.loss.detach()), correct + int(sums.correct)
    return loss, correct, {name: parameter.grad.clone() for name, parameter in trainable(model).items()}


def test_pairs_have_the_same_loss_and_gradient_however_they_are_packed(make_plan: MakePlan):
    plan = make_plan(lora={"quantization": "none"})
    known = Facts(examples=40, trained_tokens=100, parameters=10**6, parameters_per_rank=1000)
    model = load(plan, inspect_base(plan), choose(plan, known, Choice(64, "")), CPU)
    lengths = [(9, 30), (21, 4), (14, 14), (40, 7), (3, 5)]
    items = [
        tuple(a_sequence(length, max(1, length // 2), length * 7 + n) for n, length in enumerate(pair))
        for pair in lengths
    ]
    shapes = [(RowShape(packed=False), 0), (RowShape(packed=False), 200), (RowShape(), 100)]
    shapes += [(RowShape(at_least=48), 200), (RowShape(at_least=300, multiple=8), 400)]

    found = [
        preferences(Forward(model, linear_head=True), Packer(items, 0, shape), Memory(model, CPU, 40))
        for shape, _ in shapes
    ]
    for references in found[1:]:
        assert references == pytest.approx(found[0], rel=1e-4, abs=1e-4)
    torch.manual_seed(1)
    for parameter in trainable(model).values():
        parameter.data += 0.05 * torch.randn_like(parameter)  # the adapter has moved since
    loss, correct, expected = gradients(model, items, found[0], *shapes[0])
    for shape, most_tokens in shapes[1:]:
        got = gradients(model, items, found[0], shape, most_tokens)
        assert got[0] == pytest.approx(loss, rel=1e-5)
        assert got[1] == correct
        for name, gradient in expected.items():
            torch.testing.assert_close(got[2][name], gradient, rtol=1e-3, atol=1e-6)


def test_what_has_no_weight_changes_nothing_and_a_tool_call_does(make_plan: MakePlan, tmp_path: Path, base: Path):
    """The loss of a step, seen from outside: by turns of `weight: 0`, and by the arguments of a call."""
    roomy = Path(shutil.copytree(base, tmp_path / "roomy"))
    config = json.loads((roomy / "config.json").read_text())
    (roomy / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 512}))

    def first_loss(name: str, *, mute: int | None = None, city: str = "Paris") -> tuple[float, int]:
        call = {"id": "a", "type": "function", "function": {"name": "look", "arguments": json.dumps({"city": city})}}
        turns: list[dict[str, Any]] = [
            {"role": "user", "content": "Where?"},
            {"role": "assistant", "content": "Well."},
            {"role": "user", "content": "Look!"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        if mute is not None:
            turns[mute]["weight"] = 0
        tool = {"type": "function", "function": {"name": "look"}}
        rows = [{"messages": turns, "tools": [tool]}] * 4
        plan = make_plan(
            train=str(write_rows(tmp_path / f"{name}.jsonl", rows)),
            validation=None,
            base={"id": "roomy", "location": str(roomy)},
            hyperparameters={"n_epochs": 1, "batch_size": 4, "learning_rate": 0.01},
        )
        result = train(plan, tmp_path / name)
        return losses(tmp_path / name)[0]["train_loss"] * result.trained_tokens, result.trained_tokens

    both, tokens = first_loss("both")
    call, call_tokens = first_loss("call", mute=1)
    text, text_tokens = first_loss("text", mute=3)
    assert tokens == call_tokens + text_tokens
    assert both == pytest.approx(call + text, rel=1e-4)
    assert call_tokens > text_tokens > 0
    other, _ = first_loss("other", mute=1, city="Rome!")
    assert other != call
    unseen, unseen_tokens = first_loss("unseen", mute=3, city="Rome!")
    assert (unseen, unseen_tokens) == (text, text_tokens)

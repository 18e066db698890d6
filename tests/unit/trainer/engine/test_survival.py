"""A run that survives itself: losses that are no numbers, memory that runs out, an adapter to start from."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from services.trainer.domain.fits import ON_GPU
from services.trainer.domain.packing import MicroBatch, RowShape, row_shape
from services.trainer.domain.plan import Plan
from services.trainer.engine import checkpoints
from services.trainer.engine.data.batches import Packer
from services.trainer.engine.data.dataset import Dataset, Item
from services.trainer.engine.dry_run import dry_run, worst
from services.trainer.engine.loop import Interrupted
from services.trainer.engine.loss import Sums, Supervised
from services.trainer.engine.messages import TrainingResult
from services.trainer.engine.model.memory import Memory
from services.trainer.engine.snapshot import Snapshots
from services.trainer.engine.step import Stepper
from services.trainer.engine.validation import Measured, Validator
from shared import strict_json
from shared.errors import InputError
from tests.unit.trainer.engine.test_training import a_sequence, losses, stop_after, train

pytestmark = pytest.mark.torch

MakePlan = Callable[..., Plan]
NO_MEMORY = torch.cuda.OutOfMemoryError


# --- losses that are no numbers


@pytest.fixture
def break_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the loss of some steps, counted from 1 and per process, be `value`; a batch is one micro-batch here."""
    sums = Supervised.sums

    def break_steps(broken: Collection[int], value: float = math.nan) -> None:
        taken = 0

        def broken_sums(self: Supervised, model: Any, batch: Any) -> Sums:
            nonlocal taken
            taken += 1
            found = sums(self, model, batch)
            return found._replace(loss=found.loss * value) if taken in broken else found

        monkeypatch.setattr(Supervised, "sums", broken_sums)

    return break_steps


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_without_a_finite_loss_is_skipped_and_counted(
    make_plan: MakePlan, tmp_path: Path, break_steps: Callable[..., None], value: float
):
    break_steps({4, 5, 8}, value)
    out = tmp_path / "out"
    result = train(make_plan(checkpoint_every=1), out)
    rows = losses(out)
    assert [row["step"] for row in rows if row.get("skipped")] == [4, 5, 8]
    assert all(("train_loss" in row) == ("skipped" not in row) for row in rows)
    assert (result.steps, result.skipped_steps, result.diverged_at) == (20, 3, None)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] - 0.3
    assert math.isfinite(result.train_loss)
    adapters = [load_file(out / "resume" / f"step-{n}" / "adapter.safetensors") for n in (3, 5, 6)]
    assert all(torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])
    assert not all(torch.equal(adapters[0][name], adapters[2][name]) for name in adapters[0])
    assert (
        "3 skipped, because their loss or its gradient was not a finite number"
        in (out / "adapter" / "README.md").read_text()
    )
    assert (out / "results.csv").read_text().splitlines()[5] == "5,,,,"


def test_three_such_steps_in_a_row_end_training_with_the_best_adapter_so_far(
    make_plan: MakePlan, tmp_path: Path, break_steps: Callable[..., None]
):
    break_steps({4, 9, 10, 11})
    out = tmp_path / "out"
    result = train(make_plan(checkpoint_every=1, eval_every=2), out)
    assert (result.steps, result.skipped_steps, result.diverged_at) == (11, 4, 11)
    assert not result.stopped_early
    saved = load_file(out / "adapter" / "adapter_model.safetensors")
    best = load_file(out / "resume" / f"step-{result.saved_step}" / "adapter.safetensors")
    assert all(torch.equal(saved[name], best[name]) for name in best)
    assert "training ended at step 11" in (out / "adapter" / "README.md").read_text()
    again = train(make_plan(checkpoint_every=1, eval_every=2, resume_from=str(out / "resume")), tmp_path / "again")
    assert (again.steps, again.skipped_steps, again.diverged_at) == (11, 4, 11)


@pytest.mark.parametrize(("broken", "first"), [(range(1, 99), 1), (range(3, 99), 3)])
def test_a_run_that_diverges_before_a_validation_says_so(
    make_plan: MakePlan, tmp_path: Path, break_steps: Callable[..., None], broken: range, first: int
):
    break_steps(broken)
    with pytest.raises(InputError, match=rf"no longer a number at step {first}, .* lower") as caught:
        train(make_plan(eval_every=2 if first == 1 else 10), tmp_path / "out")
    assert caught.value.code == "training_diverged"


def test_a_validation_loss_that_is_no_number_is_left_out(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    measure, taken = Validator.measure, 0

    def broken(self: Validator, *, ends_epoch: bool) -> tuple[Measured, Measured | None]:
        nonlocal taken
        taken += 1
        quick, full = measure(self, ends_epoch=ends_epoch)
        odd = replace(quick, loss=(math.nan, math.inf)[taken % 2])
        return (odd, full and odd) if taken < 4 else (quick, full)

    monkeypatch.setattr(Validator, "measure", broken)
    result = train(make_plan(checkpoint_every=1, eval_every=2), tmp_path / "out")
    assert result.valid_loss is not None and math.isfinite(result.valid_loss)
    text = (tmp_path / "out" / "metrics.jsonl").read_text()
    rows = [strict_json.loads(line) for line in text.splitlines()]
    assert "valid_loss" not in rows[1] and "valid_mean_token_accuracy" in rows[1]
    assert "valid_loss" in rows[-1]
    assert strict_json.loads((tmp_path / "out" / "result.json").read_bytes())


def test_skipped_steps_are_remembered_by_a_checkpoint(
    make_plan: MakePlan, tmp_path: Path, break_steps: Callable[..., None]
):
    break_steps({2, 12})
    whole = train(make_plan(), tmp_path / "whole")
    break_steps({2})
    with pytest.raises(Interrupted):
        train(make_plan(), tmp_path / "first", stop=stop_after(7))
    break_steps({12 - 7})
    second = train(make_plan(resume_from=str(tmp_path / "first" / "resume")), tmp_path / "second")
    assert whole.skipped_steps == second.skipped_steps == 2
    assert losses(tmp_path / "second") == losses(tmp_path / "whole")


def test_a_checkpoint_of_the_version_before_is_continued(make_plan: MakePlan, tmp_path: Path):
    train(make_plan(), tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(make_plan(), tmp_path / "first", stop=stop_after(9))
    tensors, documents = checkpoints.read(tmp_path / "first" / "resume" / "step-9")
    state = json.loads(documents["state.json"])
    for name in ("skipped", "skipped_in_a_row", "best_losses"):
        del state[name]
    del state["best"]["risen"], state["identity"]["start"]
    documents = {"state.json": json.dumps(state).encode(), "metrics.jsonl": documents["metrics.jsonl"]}
    checkpoints.write(tmp_path / "old", 9, tensors, documents)
    train(make_plan(resume_from=str(tmp_path / "old")), tmp_path / "second")
    assert losses(tmp_path / "second") == losses(tmp_path / "whole")


# --- early stopping


def test_a_plateau_within_the_noise_does_not_stop_a_run(make_plan: MakePlan, tmp_path: Path):
    tiny = {"n_epochs": 6, "batch_size": 4, "learning_rate": 1e-9, "early_stopping_patience": 1}
    result = train(make_plan(hyperparameters=tiny, eval_every=2), tmp_path / "out")
    assert not result.stopped_early


# --- memory


class OnGpu(Memory):
    """The fits of a GPU, on a CPU."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, torch.device("cpu"), longest=64)
        self._fits = ON_GPU
        self.fit = ON_GPU[0]


@pytest.fixture
def stepper(make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stepper:
    """The stepper of the plan's run, before its first step."""
    found: list[Stepper] = []

    class Enough(Exception):
        """The run is prepared."""

    def no_run(loop: Any) -> None:
        found.append(loop.stepper)
        raise Enough

    monkeypatch.setattr("services.trainer.engine.loop.Loop.run", no_run)
    with pytest.raises(Enough):
        train(make_plan(lora={"quantization": "none", "r": 8}), tmp_path / "prepared")
    stepper = found[0]
    stepper.memory = OnGpu(stepper.model)
    return stepper


def everything(stepper: Stepper) -> dict[str, dict[str, Any]]:
    return Snapshots(stepper.model, stepper.optimizer, torch.device("cpu")).take().tensors


def assert_equal(one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]]) -> None:
    for kind, tensors in one.items():
        assert tensors.keys() == other[kind].keys()
        assert all(torch.equal(tensor, other[kind][name]) for name, tensor in tensors.items()), kind


def test_the_optimizers_step_is_tried_again_in_the_memory_that_activations_had(
    stepper: Stepper, monkeypatch: pytest.MonkeyPatch
):
    before = everything(stepper)
    for step in range(3):
        stepper.take(step)
    expected = everything(stepper)

    checkpoints.restore(stepper.model, stepper.optimizer, before)
    stepper.optimizer.state.clear()
    real = stepper.optimizer.step
    calls = 0

    def step_out_of_memory() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:  # memory runs out while the moments are made
            stepper.optimizer.state[stepper.parameters[0]] = {"step": torch.tensor(0.0)}
            raise NO_MEMORY
        if calls == 3:  # and after the steps were counted
            for state in stepper.optimizer.state.values():
                state["step"] += 1
            raise NO_MEMORY
        real()

    monkeypatch.setattr(stepper.optimizer, "step", step_out_of_memory)
    for step in range(3):
        assert stepper.take(step) is not None
    assert calls == 5
    assert stepper.memory.fit == ON_GPU[0]
    assert_equal(everything(stepper), expected)


def test_an_optimizer_that_does_not_fit_at_all_is_the_users_to_mend(stepper: Stepper, monkeypatch: pytest.MonkeyPatch):
    def full() -> None:
        raise NO_MEMORY

    before = everything(stepper)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2**30, 24 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 23 * 2**30)
    monkeypatch.setattr(stepper.optimizer, "step", full)
    with pytest.raises(InputError, match=r"lower .*lora\.r") as caught:
        stepper.take(0)
    assert caught.value.code == "out_of_memory"
    assert_equal(everything(stepper), before)


def test_a_dry_run_changes_nothing_but_the_fit(stepper: Stepper, monkeypatch: pytest.MonkeyPatch):
    before = everything(stepper)
    stepper.take(0)
    stepper.take(1)
    expected = everything(stepper)

    checkpoints.restore(stepper.model, stepper.optimizer, before)
    stepper.optimizer.state.clear()
    sums = Supervised.sums

    def short_of_memory(self: Supervised, model: Any, batch: Any) -> Sums:
        held = [len(state) for state in stepper.optimizer.state.values()]
        assert held == [3] * len(stepper.parameters)  # the count of steps and both moments
        assert all(parameter.grad is not None for parameter in stepper.parameters)
        if stepper.memory.fit != ON_GPU[1]:
            raise NO_MEMORY
        return sums(self, model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Supervised, "sums", short_of_memory)
        dry_run(stepper)
    assert stepper.memory.fit == ON_GPU[1]
    assert all(parameter.grad is None for parameter in stepper.parameters)
    assert_equal({**everything(stepper), "optimizer": {}}, {**before, "optimizer": {}})
    stepper.take(0)
    stepper.take(1)
    assert_equal(everything(stepper), expected)


def as_rows(items: tuple[Item, ...]) -> Dataset:
    """Each item is a row."""
    return Dataset(tuple((item,) for item in items))


def test_the_dry_run_tries_the_most_tokens_and_the_most_logits(stepper: Stepper):
    long_prompt, long_answer = (a_sequence(60, 2, 1),), (a_sequence(50, 45, 2),)
    short = tuple((a_sequence(10, 3, seed),) for seed in range(3, 9))

    def worst_of(items: tuple[Item, ...]) -> list[tuple[int, ...]]:
        stepper.train = as_rows(items)
        stepper.packer = Packer(items, 0, RowShape())
        stepper.steps = type(stepper.steps)(len(items), 1, 1)
        return [micro.items for micro in worst(stepper, micro_tokens=64)]

    assert worst_of((short[0], long_prompt, *short[1:4], long_answer, *short[4:])) == [(1,), (5,)]
    assert worst_of((*short, long_answer)) == [(6,)]


@pytest.mark.parametrize("sequences", [1, 2])
@pytest.mark.parametrize("micro_tokens", [0, 64, 100, 400])
@pytest.mark.parametrize(
    "rows", [row_shape(gpu=True, varlen=True, packed=True), RowShape(at_least=128, multiple=8), RowShape()]
)
def test_the_dry_run_passes_over_no_step_that_is_the_worst(
    stepper: Stepper, rows: RowShape, micro_tokens: int, sequences: int
):
    for seed in range(20):
        drawn = random.Random(seed)
        lengths = [drawn.randint(3, 90) for _ in range(sequences * 60)]
        made = [a_sequence(n, drawn.randint(1, n - 1), number) for number, n in enumerate(lengths)]
        items = tuple(zip(*[iter(made)] * sequences, strict=True))
        stepper.train, stepper.packer = as_rows(items), Packer(items, 0, rows)
        stepper.steps = type(stepper.steps)(60, drawn.choice((1, 4, 7)), 2)
        planned = [
            micro
            for step in range(stepper.steps.total)
            for micro in stepper.packer.plan(stepper.items(step), micro_tokens)
        ]
        found = worst(stepper, micro_tokens)
        assert max(micro.tokens for micro in found) == max(micro.tokens for micro in planned)

        def kept(micro: MicroBatch, items: tuple[Item, ...] = items) -> int:
            return sum(each.trained_tokens for item in micro.items for each in items[item])

        assert max(map(kept, found)) == max(map(kept, planned))


def test_a_gpu_without_bfloat16_is_refused(make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    with pytest.raises(InputError, match=r"Tesla T4.*bfloat16.*8\.0.*GPU=cpu") as caught:
        train(make_plan(device="cuda"), tmp_path / "out")
    assert caught.value.code == "unsupported_gpu"


# --- starting from an earlier adapter


@pytest.fixture
def earlier(make_plan: MakePlan, tmp_path: Path) -> tuple[TrainingResult, Path]:
    result = train(make_plan(lora={"r": 8}), tmp_path / "earlier")
    return result, tmp_path / "earlier" / "adapter"


def test_a_run_starts_from_an_earlier_adapter(
    make_plan: MakePlan, tmp_path: Path, earlier: tuple[TrainingResult, Path]
):
    result, folder = earlier
    plan = make_plan(start_from=str(folder), checkpoint_every=1)
    second = train(plan, tmp_path / "second")
    rows = losses(tmp_path / "second")
    assert (second.rank, second.hyperparameters["lora_alpha"]) == (8, 16)
    assert rows[0]["train_loss"] == pytest.approx(losses(tmp_path / "earlier")[-1]["train_loss"], abs=0.5)
    assert rows[0]["train_loss"] < losses(tmp_path / "earlier")[0]["train_loss"] - 0.3
    assert second.valid_loss is not None
    assert result.valid_loss is not None
    assert second.valid_loss <= result.valid_loss + 0.1

    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    with pytest.raises(Interrupted):
        train(plan, tmp_path / "first", stop=stop_after(5))
    resumed = plan.model_copy(update={"start_from": str(moved), "resume_from": str(tmp_path / "first" / "resume")})
    train(resumed, tmp_path / "continued")
    assert losses(tmp_path / "continued") == rows
    with pytest.raises(InputError, match="start differ"):
        fresh = {"start_from": None, "lora": {"r": 8}, "resume_from": str(tmp_path / "first" / "resume")}
        train(make_plan(**fresh), tmp_path / "other")


def test_a_rank_stabilized_adapter_is_served_and_continued_with_its_own_scale(
    make_plan: MakePlan, tmp_path: Path, base: Path
):
    lora = {"r": 8, "alpha": 16, "use_rslora": True}
    result = train(make_plan(lora=lora), tmp_path / "first")
    assert result.hyperparameters["use_rslora"] is True
    folder = tmp_path / "first" / "adapter"
    served = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    layers = [module for module in served.modules() if isinstance(module, LoraLayer)]
    assert {round(scale, 6) for layer in layers for scale in layer.scaling.values()} == {round(16 / 8**0.5, 6)}
    from vllm.lora.peft_helper import PEFTHelper  # noqa: PLC0415  takes seconds

    assert PEFTHelper.from_local_dir(str(folder), None).vllm_lora_scaling_factor == pytest.approx(16 / 8**0.5)
    listed = json.loads((tmp_path / "first" / "checkpoints" / "step-20" / "adapter_config.json").read_bytes())
    assert listed["use_rslora"] is True

    second = train(make_plan(start_from=str(folder)), tmp_path / "second")
    kept = {name: second.hyperparameters[name] for name in ("lora_r", "lora_alpha", "use_rslora")}
    assert kept == {"lora_r": 8, "lora_alpha": 16, "use_rslora": True}
    first_loss, last_loss = losses(tmp_path / "second")[0]["train_loss"], losses(tmp_path / "first")[-1]["train_loss"]
    assert first_loss == pytest.approx(last_loss, abs=0.5)


def test_a_checkpoint_of_a_version_without_rank_stabilization_is_continued(make_plan: MakePlan, tmp_path: Path):
    train(make_plan(lora={"r": 8}), tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(make_plan(lora={"r": 8}), tmp_path / "first", stop=stop_after(5))
    state = next((tmp_path / "first" / "resume").glob("step-*")) / "state.json"
    assert "rslora" not in state.read_text()
    train(make_plan(lora={"r": 8}, resume_from=str(tmp_path / "first" / "resume")), tmp_path / "second")
    assert losses(tmp_path / "second") == losses(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "config", "message", "param"),
    [
        ({"lora": {"r": 16}}, {}, r"has r 8, but lora.r is 16: leave it out or set it to 8", "lora.r"),
        ({"lora": {"alpha": 99}}, {}, r"has alpha 16, but lora.alpha is 99", "lora.alpha"),
        (
            {"lora": {"use_rslora": True}},
            {},
            r"has use_rslora false, but lora.use_rslora is true: leave it out or set it to false",
            "lora.use_rslora",
        ),
        (
            {"lora": {"use_rslora": False}},
            {"use_rslora": True},
            r"has use_rslora true, but lora.use_rslora is false",
            "lora.use_rslora",
        ),
        (
            {"lora": {"target_modules": ["q_proj"]}},
            {},
            r"its layers are down_proj, .*v_proj: name these",
            "lora.target",
        ),
        ({}, {"base_model_name_or_path": "other"}, r"is of base model 'other', not of 'micro'", "model"),
        ({}, {"use_dora": True}, r"not plain LoRA \(use_dora\)", "model"),
        ({}, {"r": 4}, "layers of other sizes", "model"),
        ({}, None, r"cannot be read \(FileNotFoundError\)", "model"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    make_plan: MakePlan,
    tmp_path: Path,
    earlier: tuple[TrainingResult, Path],
    changes: dict[str, Any],
    config: dict[str, Any] | None,
    message: str,
    param: str,
):
    file = earlier[1] / "adapter_config.json"
    if config is None:
        file.unlink()
    else:
        file.write_text(json.dumps({**json.loads(file.read_bytes()), **config}))
    with pytest.raises(InputError, match=message) as caught:
        train(make_plan(start_from=str(earlier[1]), **changes), tmp_path / "out")
    assert (caught.value.param or "").startswith(param)

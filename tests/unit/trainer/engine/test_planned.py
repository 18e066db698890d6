"""A run as its recipe and its memory plan want it, and what it says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from services.trainer.domain.fits import Fit
from services.trainer.domain.memory_plan import GIB
from services.trainer.domain.plan import Plan
from services.trainer.domain.recipe import Device
from services.trainer.engine import checkpoints
from services.trainer.engine import run as engine
from services.trainer.engine.loop import Interrupted
from services.trainer.engine.messages import AnyMessage, Estimated, MemoryLowered, StepDone, parse_message
from services.trainer.engine.model import adapter, memory
from services.trainer.engine.report import forecast
from services.trainer.engine.step import Stepper
from shared.errors import InputError
from tests.unit.trainer.engine.test_training import losses, stop_after, train

pytestmark = pytest.mark.torch

MakePlan = Callable[..., Plan]
LARGE, SMALL = Fit(micro_tokens=256, recompute=False), Fit(micro_tokens=64, recompute=True)
A_GPU = Device(True, "NVIDIA H100 80GB HBM3", 80 * GIB, 79 * GIB, (9, 0))


def document(out: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((out / "hyperparameters.json").read_text())
    return found


def messages(text: str) -> list[AnyMessage]:
    return [message for line in text.splitlines() if (message := parse_message(line)) is not None]


# --- what is said


def test_recipe_and_estimate_are_told_before_the_first_step_and_compared_at_the_end(
    make_plan: MakePlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    result = train(make_plan(), tmp_path / "out")
    said = messages(capsys.readouterr().out)
    [estimate] = [message for message in said if isinstance(message, Estimated)]
    assert said.index(estimate) < min(n for n, message in enumerate(said) if isinstance(message, StepDone))
    assert estimate.seconds is not None and estimate.seconds > 0 and estimate.memory_bytes > 0
    found = document(tmp_path / "out")
    assert found["quantization"] == {"value": "nf4", "reason": "on a CPU, where it takes the least memory"}
    assert found["fused_lora"]["value"] is True
    for name in ("liger", "cuda_graphs"):
        assert found[name]["value"] is False and found[name]["reason"]
    assert found["recompute"]["value"] == "none" and found["recompute"]["reason"]
    assert found["micro_tokens"]["value"] == 1024
    assert (found["estimate"]["value"]["memory_bytes"], result.estimated_memory_bytes) == 2 * (estimate.memory_bytes,)
    assert result.hyperparameters["quantization"] == "nf4", "what was chosen, not what was asked for"
    assert result.peak_memory_bytes is not None and result.peak_memory_bytes > 0
    words = f"estimated {estimate.memory_bytes / GIB:.1f} GiB, used {result.peak_memory_bytes / GIB:.1f}"
    assert words in found["estimate"]["reason"]
    card = (tmp_path / "out" / "adapter" / "README.md").read_text()
    assert f"| estimate and outcome | {words}" in card
    assert "| quantization | nf4 |" in card


def test_fp8_is_refused_before_anything_is_read(make_plan: MakePlan, tmp_path: Path):
    plan = make_plan(lora={"quantization": "fp8"}, train="not/there.jsonl")
    with pytest.raises(InputError, match="training runs on a CPU here: use 'auto'") as caught:
        train(plan, tmp_path / "out")
    assert (caught.value.code, caught.value.param) == ("unsupported_quantization", "lora.quantization")


# --- what `auto` becomes


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan is made for a large GPU, and computed on the CPU."""
    monkeypatch.setattr(forecast, "device_facts", lambda _: A_GPU)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: A_GPU.name)


@pytest.mark.usefixtures("pretended_gpu")
def test_auto_is_bf16_where_it_fits(make_plan: MakePlan, tmp_path: Path):
    result = train(make_plan(), tmp_path / "out")
    assert result.hyperparameters["quantization"] == "none"
    assert "of the 79.0 GiB that are free" in document(tmp_path / "out")["quantization"]["reason"]
    asked = train(make_plan(lora={"quantization": "none"}), tmp_path / "asked")
    assert losses(tmp_path / "asked") == losses(tmp_path / "out")
    assert asked.hyperparameters["quantization"] == "none"


@pytest.mark.usefixtures("pretended_gpu")
@pytest.mark.parametrize("when", ["load", "fit"])
def test_auto_is_nf4_after_all_where_bf16_turns_out_not_to_fit(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
):
    load, take = adapter.load, Stepper.take
    tried: list[str] = []

    def loading(plan: Plan, facts: Any, chosen: Any, device: Any, compute: Any) -> Any:
        tried.append(chosen.quantization.value)
        if when == "load" and chosen.quantization.value == "none":
            raise InputError("out_of_memory", "the base model does not fit", "model")
        return load(plan, facts, chosen, device, compute)

    def taking(stepper: Stepper, step: int, **more: Any) -> Any:
        if when == "fit" and stepper.chosen.quantization.value == "none":
            raise InputError("out_of_memory", "not even one row fits", "hyperparameters.max_length")
        return take(stepper, step, **more)

    monkeypatch.setattr(adapter, "load", loading)
    monkeypatch.setattr(Stepper, "take", taking)
    result = train(make_plan(), tmp_path / "out")
    assert tried == ["none", "nf4"]
    assert result.hyperparameters["quantization"] == "nf4"
    assert "did not fit" in document(tmp_path / "out")["quantization"]["reason"]
    assert len(losses(tmp_path / "out")) == result.steps == 20
    tried.clear()
    with pytest.raises(InputError, match="fit"):
        train(make_plan(lora={"quantization": "none"}), tmp_path / "asked")
    assert tried == ["none"], "who asked for it gets it or an error"


@pytest.mark.usefixtures("pretended_gpu")
def test_memory_that_runs_out_after_a_step_begins_nothing_anew(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    take = Stepper.take

    def taking(stepper: Stepper, step: int, **more: Any) -> Any:
        if step == 3:
            raise InputError("out_of_memory", "not even one row fits", "hyperparameters.max_length")
        return take(stepper, step, **more)

    monkeypatch.setattr(Stepper, "take", taking)
    with pytest.raises(InputError, match="not even one row"):
        train(make_plan(), tmp_path / "out")


@pytest.mark.parametrize(("first", "then"), [("auto", "nf4"), ("nf4", "auto"), ("auto", "auto")])
def test_a_run_is_continued_by_what_its_quantization_was_not_by_what_was_asked(
    make_plan: MakePlan, tmp_path: Path, first: str, then: str
):
    whole = train(make_plan(), tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(make_plan(lora={"quantization": first}), tmp_path / "first", stop=stop_after(5))
    resume = {"lora": {"quantization": then}, "resume_from": str(tmp_path / "first" / "resume")}
    assert train(make_plan(**resume), tmp_path / "second").train_loss == whole.train_loss
    assert losses(tmp_path / "second") == losses(tmp_path / "whole")


def test_a_run_that_began_in_nf4_goes_on_in_nf4_on_a_larger_gpu(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    train(make_plan(), tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(make_plan(), tmp_path / "first", stop=stop_after(5))
    monkeypatch.setattr(forecast, "device_facts", lambda _: A_GPU)
    result = train(make_plan(resume_from=str(tmp_path / "first" / "resume")), tmp_path / "second")
    assert result.hyperparameters["quantization"] == "nf4"
    assert "checkpoint" in document(tmp_path / "second")["quantization"]["reason"]
    assert losses(tmp_path / "second") == losses(tmp_path / "whole")


def test_a_run_that_began_in_bf16_cannot_go_on_where_that_does_not_fit_and_says_why(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as on_a_gpu:
        on_a_gpu.setattr(forecast, "device_facts", lambda _: A_GPU)
        with pytest.raises(Interrupted):
            train(make_plan(), tmp_path / "first", stop=stop_after(5))
    with pytest.raises(InputError, match=r"chosen.quantization differ.* start anew") as caught:
        train(make_plan(resume_from=str(tmp_path / "first" / "resume")), tmp_path / "second")
    assert caught.value.code == "checkpoint_mismatch", "then the service starts anew"


# --- memory that runs out


@pytest.fixture
def two_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "ON_CPU", (LARGE, SMALL))


@pytest.fixture
def short_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory runs out in the third step, in the backward pass of a large micro-batch; half of the step is done then."""
    backward = Stepper.backward
    taken: list[int] = []
    take = Stepper.take

    def taking(stepper: Stepper, step: int, **more: Any) -> Any:
        taken.append(step)
        return take(stepper, step, **more)

    def failing(stepper: Stepper, batch: Any, weight: int) -> Any:
        sums = backward(stepper, batch, weight)
        if taken[-1] == 2 and stepper.memory.fit == LARGE:
            raise torch.cuda.OutOfMemoryError
        return sums

    monkeypatch.setattr(Stepper, "take", taking)
    monkeypatch.setattr(Stepper, "backward", failing)


@pytest.mark.usefixtures("two_fits", "short_of_memory")
def test_when_memory_runs_out_the_step_is_done_again_with_less_and_the_run_goes_on(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    plan = make_plan(checkpoint_every=1)
    result = train(plan, tmp_path / "out")
    said = messages(capsys.readouterr().out)
    [lowered] = [message for message in said if isinstance(message, MemoryLowered)]
    assert (lowered.step, lowered.micro_tokens, lowered.recompute) == (3, 64, True)
    steps = [message.step for message in said if isinstance(message, StepDone)]
    assert steps == list(range(1, 21)), "no step is lost or done twice"
    assert [each.step for each in result.lowered] == [3]
    assert json.loads((tmp_path / "out" / "result.json").read_text())["lowered"] == [
        {"step": 3, "micro_tokens": 64, "recompute": True}
    ]
    assert "memory ran out at step 3" in (tmp_path / "out" / "adapter" / "README.md").read_text()

    monkeypatch.setattr(memory, "ON_CPU", (SMALL,))  # as if it had begun with less
    train(plan, tmp_path / "lower")
    assert "memory_lowered" not in capsys.readouterr().out
    for ours, theirs in zip(losses(tmp_path / "out"), losses(tmp_path / "lower"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    ours, theirs = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("out", "lower"))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-2, atol=1e-4)


@pytest.mark.usefixtures("two_fits", "short_of_memory")
def test_a_continued_run_remembers_that_memory_ran_out(make_plan: MakePlan, tmp_path: Path):
    whole = train(make_plan(), tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(make_plan(), tmp_path / "first", stop=stop_after(30))
    resume = tmp_path / "first" / "resume"
    found = checkpoints.newest_complete(resume)
    assert found is not None and (checkpoints.step_of(found.name) or 0) > 3
    result = train(make_plan(resume_from=str(resume)), tmp_path / "second")
    assert result.lowered == whole.lowered != ()
    assert losses(tmp_path / "second") == losses(tmp_path / "whole")


def test_the_search_for_what_fits_begins_where_the_plan_says(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory, "ON_CPU", (LARGE, SMALL))
    small = Device(False, "CPU", GIB, GIB // 2)
    monkeypatch.setattr(forecast, "device_facts", lambda _: small)
    used: list[Fit] = []
    backward = Stepper.backward

    def noted(stepper: Stepper, batch: Any, weight: int) -> Any:
        used.append(stepper.memory.fit)
        return backward(stepper, batch, weight)

    monkeypatch.setattr(Stepper, "backward", noted)
    train(make_plan(hyperparameters={"n_epochs": 1, "batch_size": 20}), tmp_path / "out")
    assert set(used) == {SMALL}
    assert document(tmp_path / "out")["micro_tokens"]["value"] == SMALL.micro_tokens
    assert engine.fits_of(torch.device("cpu")) == (LARGE, SMALL)

"""Checkpoints of the engine: the listed ones, those to continue from, and training that goes on beside them."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from services.trainer.domain import schedule
from services.trainer.domain.plan import Plan
from services.trainer.engine import __main__ as command
from services.trainer.engine import checkpoints
from services.trainer.engine.loop import Interrupted, Loop
from services.trainer.engine.messages import CheckpointWritten, ExitCode, Message, StepDone
from services.trainer.engine.model.adapter import adapter_parameters
from services.trainer.engine.report.reporter import Reporter
from services.trainer.engine.run import run
from shared.errors import InputError
from tests.unit.trainer.engine.test_training import losses, stop_after, train

pytestmark = pytest.mark.torch

MakePlan = Callable[..., Plan]
WAIT = 60.0


class Watched:
    """What a run says; `reached(n)` is set when step `n` is taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.messages: list[Message] = []
        self._reached: dict[int, threading.Event] = {}
        send = Reporter.send

        def heard(reporter: Reporter, message: Message) -> None:
            self.messages.append(message)
            if isinstance(message, StepDone):
                self.reached(message.step).set()
            send(reporter, message)

        monkeypatch.setattr(Reporter, "send", heard)

    def reached(self, step: int) -> threading.Event:
        return self._reached.setdefault(step, threading.Event())

    def written(self, *, listed: bool) -> list[int]:
        return [m.step for m in self.messages if isinstance(m, CheckpointWritten) and m.listed == listed]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


@pytest.fixture
def hold_writes(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], None]], None]:
    """Let `before(step)` run in the thread that writes, before each checkpoint."""
    write = checkpoints.write

    def hold(before: Callable[[int], None]) -> None:
        def held(folder: Path, step: int, *content: Any) -> Path:
            before(step)
            return write(folder, step, *content)

        monkeypatch.setattr(checkpoints, "write", held)

    return hold


# --- two kinds


def test_each_end_of_an_epoch_is_listed_as_an_adapter_that_peft_reads(make_plan: MakePlan, tmp_path: Path, base: Path):
    out = tmp_path / "out"
    result = train(make_plan(validation=None, checkpoint_every=4), out)
    assert [(info.step, info.prefix) for info in result.checkpoints] == [
        (10, "checkpoints/step-10/"),
        (20, "checkpoints/step-20/"),
    ]
    last = out / "checkpoints" / "step-20"
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (last / name).read_bytes() == (out / "adapter" / name).read_bytes()
    assert {path.name for path in last.iterdir()} == {
        *("adapter_config.json", "adapter_model.safetensors", "COMPLETE.json")
    }
    first = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), out / "checkpoints" / "step-10")
    assert any(float(p.abs().max()) > 0 for name, p in first.named_parameters() if "lora_B" in name)
    steps = sorted(int(path.name.removeprefix("step-")) for path in (out / "resume").iterdir())
    assert steps == [4, 8, 10, 12, 16, 20]


def test_what_is_listed_is_written_before_the_state_that_says_so(make_plan: MakePlan, tmp_path: Path, watched: Watched):
    train(make_plan(), tmp_path / "out")
    said = [(m.step, m.listed) for m in watched.messages if isinstance(m, CheckpointWritten)]
    assert said == [(10, True), (10, False), (20, True), (20, False)]
    state = json.loads((tmp_path / "out" / "resume" / "step-10" / "state.json").read_bytes())
    assert [info["step"] for info in state["checkpoints"]] == [10]


def test_a_listed_checkpoint_is_nothing_to_continue_from(make_plan: MakePlan, tmp_path: Path):
    train(make_plan(), tmp_path / "first")
    with pytest.raises(InputError, match="name the folder `resume` of a run") as caught:
        train(make_plan(resume_from=str(tmp_path / "first" / "checkpoints")), tmp_path / "second")
    assert caught.value.code == "no_checkpoint"


def test_a_run_by_hand_keeps_the_newest_state_and_all_that_is_listed(make_plan: MakePlan, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    run(make_plan(checkpoint_every=3), out, Reporter(out, events=False), lambda: False)
    assert [path.name for path in (out / "resume").iterdir()] == ["step-20"]
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"step-10", "step-20"}


def test_an_adapters_tensors_have_the_names_that_peft_gives_them(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    compared = []

    def compare(loop: Loop) -> None:
        theirs = get_peft_model_state_dict(loop.model, save_embedding_layers=False)
        ours = adapter_parameters(loop.model)
        assert {name: tensor.data_ptr() for name, tensor in ours.items()} == {
            name: tensor.data_ptr() for name, tensor in theirs.items()
        }
        compared.append(len(ours))
        raise Interrupted

    monkeypatch.setattr(Loop, "run", compare)
    for quantization in ("nf4", "none"):
        with pytest.raises(Interrupted):
            train(make_plan(lora={"quantization": quantization}), tmp_path / quantization)
    assert compared == [28, 28]


# --- writing beside the training


def test_a_checkpoint_that_is_written_while_training_goes_on_is_the_state_of_its_step(
    make_plan: MakePlan, tmp_path: Path, watched: Watched, hold_writes: Callable[..., None]
):
    lora = {"r": 8, "dropout": 0.2}
    train(make_plan(lora=lora, checkpoint_every=1), tmp_path / "each")
    watched.messages.clear()
    watched.reached(15).clear()
    hold_writes(lambda step: step == 10 and watched.reached(15).wait(WAIT))
    train(make_plan(lora=lora), tmp_path / "out")

    said = [m for m in watched.messages if isinstance(m, (StepDone, CheckpointWritten))]
    place = {(type(m), m.step): n for n, m in enumerate(said)}
    assert place[CheckpointWritten, 10] > place[StepDone, 15]
    one, other = (tmp_path / name / "resume" / "step-10" for name in ("each", "out"))
    for file in ("adapter", "optimizer", "best", "random"):
        expected, written = (load_file(folder / f"{file}.safetensors") for folder in (one, other))
        assert expected.keys() == written.keys()
        assert all(torch.equal(expected[name], written[name]) for name in expected), file
    assert losses(one) == losses(other)
    assert len(losses(other)) == 10
    states = [json.loads((folder / "state.json").read_bytes()) for folder in (one, other)]
    assert {key for key in states[0] if states[0][key] != states[1][key]} <= {"seconds"}

    resumed = make_plan(lora=lora, resume_from=str(other))
    train(resumed, tmp_path / "resumed")
    assert losses(tmp_path / "resumed") == losses(tmp_path / "each")


def test_while_a_state_is_written_the_clock_asks_for_no_other(
    make_plan: MakePlan,
    tmp_path: Path,
    watched: Watched,
    hold_writes: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(schedule, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(schedule, "CHECKPOINT_SHARE", 1e9)
    under_way, most = 0, 0

    def before(step: int) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if step == 1:
            assert watched.reached(6).wait(WAIT)
        under_way -= 1

    hold_writes(before)
    train(make_plan(), tmp_path / "out")
    written = watched.written(listed=False)
    assert written[0] == 1 and written[1] >= 6
    assert {10, 20} <= set(written)
    assert most == 1


@pytest.mark.parametrize("at", [10, 20])
def test_a_disk_that_is_full_ends_the_run_and_is_told_as_such(
    make_plan: MakePlan, tmp_path: Path, hold_writes: Callable[..., None], monkeypatch: pytest.MonkeyPatch, at: int
):
    def full(step: int) -> None:
        if step == at:
            raise OSError(errno.ENOSPC, "No space left on device")

    hold_writes(full)
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    (tmp_path / "plan.json").write_text(make_plan().model_dump_json())
    code = command.main([str(tmp_path / "plan.json"), str(tmp_path / "out"), "--events"])
    assert code == ExitCode.NO_SPACE
    assert not (tmp_path / "out" / "result.json").exists()


def test_a_run_that_is_stopped_ends_when_its_last_state_is_written(
    make_plan: MakePlan, tmp_path: Path, watched: Watched, hold_writes: Callable[..., None]
):
    stopping = threading.Event()
    asked = stop_after(12)

    def stop() -> bool:
        if asked():
            stopping.set()
        return stopping.is_set()

    # the state of step 10 is still being written when the run is asked to stop after step 12
    hold_writes(lambda step: step == 10 and stopping.wait(WAIT))
    with pytest.raises(Interrupted):
        train(make_plan(), tmp_path / "out", stop=stop)
    assert watched.written(listed=False) == [10, 12]
    assert checkpoints.newest_complete(tmp_path / "out" / "resume") == tmp_path / "out" / "resume" / "step-12"


def test_a_run_that_is_stopped_right_after_a_state_was_written_writes_it_once(
    make_plan: MakePlan, tmp_path: Path, watched: Watched
):
    with pytest.raises(Interrupted):
        train(make_plan(), tmp_path / "out", stop=stop_after(10))
    assert watched.written(listed=False) == [10]


def test_a_run_that_fails_leaves_the_state_that_was_being_written(
    make_plan: MakePlan, tmp_path: Path, watched: Watched, hold_writes: Callable[..., None]
):
    failing = threading.Event()

    class Crash(Exception):
        """The training fails."""

    asked = stop_after(12)

    def fail() -> bool:
        if asked():
            failing.set()
            raise Crash
        return False

    hold_writes(lambda step: step == 10 and failing.wait(WAIT))
    with pytest.raises(Crash):
        train(make_plan(), tmp_path / "out", stop=fail)
    assert watched.written(listed=False) == [10]

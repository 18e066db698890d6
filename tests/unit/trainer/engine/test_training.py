"""The engine on a micro base: losses, checkpoints, what a run leaves behind."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from services.trainer.domain.auto import Choice, Facts, choose
from services.trainer.domain.packing import RowShape
from services.trainer.domain.plan import Plan, Switches
from services.trainer.engine import checkpoints
from services.trainer.engine.data.batches import Batch, Packer, epoch_order
from services.trainer.engine.data.tokens import Example
from services.trainer.engine.forward import Forward
from services.trainer.engine.loop import Interrupted
from services.trainer.engine.loss import Dpo, Supervised, preferences
from services.trainer.engine.messages import TrainingResult
from services.trainer.engine.model import memory
from services.trainer.engine.model.adapter import load, set_training, trainable
from services.trainer.engine.model.base import inspect_base
from services.trainer.engine.model.memory import Memory
from services.trainer.engine.report.reporter import Reporter
from services.trainer.engine.run import run
from shared.errors import InputError
from tests.support.data.micro_base import write_rows

pytestmark = pytest.mark.torch

MakePlan = Callable[..., Plan]


def train(plan: Plan, out: Path, stop: Callable[[], bool] = lambda: False) -> TrainingResult:
    out.mkdir(parents=True, exist_ok=True)
    return run(plan, out, Reporter(out, events=True), stop)


def losses(out: Path) -> list[dict[str, float]]:
    """The rows of metrics.jsonl without the values that depend on the clock."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "tokens_per_second"} for row in rows]


def stop_after(asked: int) -> Callable[[], bool]:
    """A `stop` that returns True after its first `asked` calls; it is called once per micro-batch."""
    calls: Iterator[int] = iter(range(1, 10**6))
    return lambda: next(calls) > asked


def a_sequence(length: int, trained: int, seed: int) -> Example:
    tokens = np.random.default_rng(seed).integers(3, 200, length)
    return Example(tokens, np.arange(length) >= length - trained)


ROWS = RowShape(at_least=64)


def packed(items: list[tuple[Example, ...]], references: Any = None, shape: RowShape = ROWS) -> Batch:
    """All items in one micro-batch."""
    packer = Packer(items, 0, shape, references)
    [micro] = packer.plan(range(len(items)), 10**4)
    return packer.pack(micro)


def reads(model: Any) -> Forward:
    return Forward(model, linear_head=True)


@pytest.fixture
def model(make_plan: MakePlan) -> Any:
    plan = make_plan(lora={"quantization": "none"})
    facts = Facts(examples=40, trained_tokens=100, parameters=10**6, parameters_per_rank=1000)
    return load(plan, inspect_base(plan), choose(plan, facts, Choice(64, "")), torch.device("cpu"))


# --- losses


def gradients(model: Any, pieces: list[list[tuple[Example, ...]]]) -> dict[str, Any]:
    set_training(model, True)
    model.zero_grad()
    batches = [packed(piece) for piece in pieces]
    weight = sum(batch.trained_tokens for batch in batches)
    for batch in batches:
        (Supervised().sums(reads(model), batch).loss / weight).backward()
    return {name: parameter.grad.clone() for name, parameter in trainable(model).items()}


ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def test_a_batch_in_pieces_has_the_gradient_of_the_whole(model: Any):
    items = [(a_sequence(20, 15, 1),), (a_sequence(9, 1, 2),), (a_sequence(14, 3, 3),)]
    whole = gradients(model, [items])
    pieces = gradients(model, [items[:1], items[1:]])
    assert any(float(gradient.abs().max()) > 0 for gradient in whole.values())
    for name, gradient in whole.items():
        torch.testing.assert_close(pieces[name], gradient, rtol=1e-4, atol=1e-6)


def test_the_loss_is_that_of_the_trained_tokens_alone(model: Any):
    sequence = a_sequence(12, 4, 1)
    set_training(model, False)
    with torch.no_grad():
        sums = Supervised().sums(reads(model), packed([(sequence,), (a_sequence(30, 2, 2),)]))
        alone = Supervised().sums(reads(model), packed([(a_sequence(30, 2, 2),)]))
        scores = model(input_ids=torch.from_numpy(sequence.tokens)[None]).logits[0].log_softmax(-1)
    expected = -sum(float(scores[place - 1, sequence.tokens[place]]) for place in range(8, 12))
    assert float(sums.loss - alone.loss) == pytest.approx(expected, rel=1e-4)


PAIRS = [(a_sequence(10, 3, 1), a_sequence(15, 5, 2)), (a_sequence(7, 2, 3), a_sequence(6, 2, 4))]


def references_of(model: Any) -> tuple[float, ...]:
    return preferences(reads(model), Packer(PAIRS, 0, RowShape()), Memory(model, torch.device("cpu"), 15))


def test_a_fresh_adapter_has_no_preference(model: Any):
    references = references_of(model)
    sums = Dpo(beta=0.1).sums(reads(model), packed(PAIRS, references))
    assert float(sums.loss.detach()) == pytest.approx(2 * math.log(2), rel=1e-5)


def test_a_reference_computed_once_gives_the_loss_of_one_computed_each_time(
    model: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory, "ON_CPU", (memory.Fit(micro_tokens=0, recompute=False),))  # in other pieces than below
    references = references_of(model)
    torch.manual_seed(1)
    for parameter in trainable(model).values():
        parameter.data += 0.05 * torch.randn_like(parameter)  # the adapter has moved since
    batch = packed(PAIRS, references)
    [micro] = Packer(PAIRS, 0, RowShape(at_least=64)).plan(range(2), 10**4)
    order = micro.items

    def likelihood(sequence: Example) -> Any:
        ids = torch.from_numpy(sequence.tokens)
        scores = model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
        return scores.gather(-1, ids[1:, None]).squeeze(-1)[torch.from_numpy(sequence.trained[1:])].sum()

    def margins() -> Any:
        found = {pair: likelihood(pair[0]) - likelihood(pair[1]) for pair in PAIRS}
        return torch.stack([found[PAIRS[index]] for index in order])

    with torch.no_grad():
        tuned = margins()
        with model.disable_adapter():
            of_base = margins()
    assert float((tuned - of_base).abs().min()) > 1e-4
    expected = -torch.nn.functional.logsigmoid(0.1 * (tuned - of_base))
    got = Dpo(beta=0.1).each(reads(model), batch)
    torch.testing.assert_close(got.loss, expected, rtol=1e-5, atol=1e-6)
    summed = Dpo(beta=0.1).sums(reads(model), batch).loss
    assert float(summed.detach()) == pytest.approx(float(expected.sum()), rel=1e-6)


def test_an_epochs_order_is_a_permutation_that_seed_and_epoch_decide():
    assert sorted(epoch_order(50, 0, 0)) == [*range(50)]
    assert epoch_order(50, 0, 1) == epoch_order(50, 0, 1)
    assert len({tuple(epoch_order(50, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


# --- a run


def test_a_run_learns_and_leaves_everything_behind(make_plan: MakePlan, tmp_path: Path, base: Path):
    out = tmp_path / "out"
    result = train(make_plan(), out)
    rows = losses(out)
    assert result.steps == len(rows) == 20
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] - 0.3
    assert result.valid_loss == min(row["valid_loss"] for row in rows if "valid_loss" in row)
    assert [row["step"] for row in rows if "full_valid_loss" in row] == [10, 20]
    assert (
        (out / "results.csv")
        .read_text()
        .startswith("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,")
    )
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "⟦" in (out / "preview.txt").read_text()
    assert json.loads((out / "hyperparameters.json").read_text())["batch_size"] == {"value": 4, "reason": "as set"}
    assert checkpoints.newest_complete(out / "resume") == out / "resume" / "step-20"

    adapter = out / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"], config["use_dora"]) == ("micro", 16, False)
    assert str(base) not in (adapter / "README.md").read_text() + json.dumps(config)
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    assert tokenizer.chat_template
    assert json.loads((adapter / "generation_config.json").read_text())["eos_token_id"] == tokenizer.eos_token_id
    served = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    assert any(float(p.abs().max()) > 0 for name, p in served.named_parameters() if "lora_B" in name)


@pytest.mark.parametrize(
    "asked", [{"packed": False}, {"lean": True}, {"lean": True, "switches": Switches(offload=True)}]
)
def test_neither_one_document_a_row_nor_recomputation_changes_what_is_learnt(
    make_plan: MakePlan, tmp_path: Path, asked: dict[str, Any]
):
    plan = make_plan(hyperparameters={"n_epochs": 1, "batch_size": 4, "learning_rate": 0.01})
    train(plan, tmp_path / "usual")
    train(plan.model_copy(update=asked), tmp_path / "other")
    packing = json.loads((tmp_path / "other" / "hyperparameters.json").read_text())["packing"]
    assert packing["value"] == ("packed" not in asked)
    kept = json.loads((tmp_path / "other" / "hyperparameters.json").read_text())["offload"]
    assert (kept["value"], bool(kept["reason"])) == ("switches" in asked, True)
    for usual, other in zip(losses(tmp_path / "usual"), losses(tmp_path / "other"), strict=True):
        assert {name: other[name] for name in usual if "loss" in name} == pytest.approx(
            {name: value for name, value in usual.items() if "loss" in name}, rel=2e-3
        )


def test_the_base_is_quantized_unless_told_otherwise(make_plan: MakePlan):
    facts = Facts(examples=40, trained_tokens=100, parameters=10**6, parameters_per_rank=1000)
    for quantization, kinds in (("nf4", {"Linear4bit"}), ("none", {"Linear"})):
        plan = make_plan(lora={"quantization": quantization})
        model = load(plan, inspect_base(plan), choose(plan, facts, Choice(64, "")), torch.device("cpu"))
        layers = [m for n, m in model.named_modules() if n.endswith("q_proj.base_layer")]
        assert {type(layer).__name__ for layer in layers} == kinds
        assert all("lora_" in name and p.dtype == torch.float32 for name, p in trainable(model).items())
        set_training(model, False)
        assert all(layer.training == (quantization == "nf4") for layer in layers)
        if quantization == "nf4":
            state = layers[0].weight.quant_state
            assert (state.quant_type, state.nested) == ("nf4", True)


def test_the_adapter_of_the_best_validation_is_what_is_saved(make_plan: MakePlan, tmp_path: Path):
    # so high a rate that memorising 4 rows soon spoils the unseen ones
    few = write_rows(tmp_path / "few.jsonl", [{"prompt": f"{n}", "completion": f"{n * n} and so"} for n in range(4)])
    unseen = write_rows(tmp_path / "unseen.jsonl", [{"prompt": "Where?", "completion": " The order please"}])
    plan = make_plan(
        train=str(few),
        validation=str(unseen),
        format="completion",
        hyperparameters={"n_epochs": 12, "batch_size": 2, "learning_rate": 0.1, "early_stopping_patience": 4},
        checkpoint_every=1,
        eval_every=1,
    )
    out = tmp_path / "out"
    result = train(plan, out)
    assert result.stopped_early
    assert result.steps == result.saved_step + 4
    saved = load_file(out / "adapter" / "adapter_model.safetensors")
    best = load_file(out / "resume" / f"step-{result.saved_step}" / "adapter.safetensors")
    last = load_file(out / "resume" / f"step-{result.steps}" / "adapter.safetensors")
    assert all(torch.equal(saved[name], best[name]) for name in best)
    assert not all(torch.equal(saved[name], last[name]) for name in last)


def test_preferences_are_learnt(make_plan: MakePlan, tmp_path: Path):
    rows = [
        {
            "input": {"messages": [{"role": "user", "content": f"Where is order {n}?"}]},
            "preferred_completion": [{"role": "assistant", "content": "On its way."}],
            "non_preferred_completion": [{"role": "assistant", "content": "Who knows?"}],
        }
        for n in range(16)
    ]
    plan = make_plan(
        method="dpo", format="preference", train=str(write_rows(tmp_path / "pairs.jsonl", rows)), validation=None
    )
    result = train(plan, tmp_path / "out")
    rows_of_run = losses(tmp_path / "out")
    assert rows_of_run[0]["train_loss"] == pytest.approx(math.log(2), rel=1e-3)
    assert rows_of_run[-1]["train_loss"] < 0.65
    assert rows_of_run[-1]["train_mean_token_accuracy"] == 1.0
    assert result.overfitting.verdict == "unknown"


# --- interruption


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_continued_run_has_the_losses_of_an_unbroken_one(make_plan: MakePlan, tmp_path: Path, dropout: float):
    lora = {"r": 8, "dropout": dropout}
    whole = train(make_plan(lora=lora), tmp_path / "whole")

    with pytest.raises(Interrupted):
        train(make_plan(lora=lora), tmp_path / "first", stop=stop_after(13))
    assert len(losses(tmp_path / "first")) == 13
    torch.manual_seed(999)  # whatever the process has drawn meanwhile
    resumed = make_plan(lora=lora, resume_from=str(tmp_path / "first" / "resume"))
    result = train(resumed, tmp_path / "second")

    assert losses(tmp_path / "second") == losses(tmp_path / "whole")
    one, other = (load_file(tmp_path / run / "adapter" / "adapter_model.safetensors") for run in ("whole", "second"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    differing = {name for name in TrainingResult.model_fields if getattr(whole, name) != getattr(result, name)}
    assert differing <= {"seconds", "checkpoints", "peak_memory_bytes"}


def test_interruption_within_a_batch_loses_nothing_of_it(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory, "ON_CPU", (memory.Fit(micro_tokens=0, recompute=False),))  # 4 micro-batches per batch
    lora = {"r": 8, "dropout": 0.3}
    train(make_plan(lora=lora), tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(make_plan(lora=lora), tmp_path / "first", stop=stop_after(4 * 7 + 2))
    train(make_plan(lora=lora, resume_from=str(tmp_path / "first" / "resume")), tmp_path / "second")
    assert losses(tmp_path / "second") == losses(tmp_path / "whole")


def test_a_finished_run_continued_only_saves_again(make_plan: MakePlan, tmp_path: Path):
    first = train(make_plan(), tmp_path / "first")
    again = train(make_plan(resume_from=str(tmp_path / "first" / "resume")), tmp_path / "again")
    assert again.steps == first.steps
    assert again.valid_loss == first.valid_loss
    assert (tmp_path / "again" / "adapter" / "adapter_model.safetensors").read_bytes() == (
        tmp_path / "first" / "adapter" / "adapter_model.safetensors"
    ).read_bytes()


def test_a_checkpoint_of_other_settings_is_refused(make_plan: MakePlan, tmp_path: Path):
    train(make_plan(), tmp_path / "first")
    other = make_plan(seed=5, resume_from=str(tmp_path / "first" / "resume"))
    with pytest.raises(InputError, match="seed differ") as caught:
        train(other, tmp_path / "second")
    assert caught.value.code == "checkpoint_mismatch"


@pytest.mark.parametrize(("served", "continues"), [(ALL, True), (("q_proj", "v_proj"), False)])
def test_a_checkpoint_is_continued_if_its_adapter_has_the_layers_that_the_server_has(
    make_plan: MakePlan, tmp_path: Path, served: tuple[str, ...], continues: bool
):
    train(make_plan(), tmp_path / "first")  # before anybody asked the server
    other = make_plan(served_linears=served, resume_from=str(tmp_path / "first" / "resume"))
    if continues:
        train(other, tmp_path / "second")
        return
    with pytest.raises(InputError, match="other layers") as caught:
        train(other, tmp_path / "second")
    assert caught.value.code == "checkpoint_mismatch"


def test_half_a_checkpoint_is_no_checkpoint(tmp_path: Path):
    for step in (1, 2, 10):
        checkpoints.write(tmp_path, step, {"t": {"x": torch.ones(2) * step}}, {"state.json": b"{}"})
    assert checkpoints.newest_complete(tmp_path) == tmp_path / "step-10"
    (tmp_path / "step-10" / "t.safetensors").write_bytes(b"cut short")
    (tmp_path / "step-11").mkdir()
    assert checkpoints.newest_complete(tmp_path) == tmp_path / "step-2"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_random_numbers_go_on_where_they_were():
    def draw() -> tuple[Any, ...]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    state = checkpoints.capture_random()
    first = draw()
    checkpoints.restore_random(state)
    assert draw() == first


# --- refusals before anything is trained


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"lora": {"r": 128}}, "lora_rank_too_high", r"lora.r is 128, .* up to rank 64: lower lora.r"),
        ({"lora": {"target_modules": ["q_proj", "nope"]}}, "unknown_target_modules", r"names nope; .*q_proj"),
        ({"lora": {"target_modules": ["lm_head"]}}, "unknown_target_modules", "names lm_head"),
        ({"base": {"id": "x/y", "location": "/nowhere"}}, "model_not_found", "'x/y' was not found"),
        ({"resume_from": "nowhere"}, "no_checkpoint", "holds no complete checkpoint to continue from"),
        (
            {"hyperparameters": {"max_length": 10, "over_length": "fail"}},
            "over_length",
            "40 rows have more than 10 tokens",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_a_remedy(
    make_plan: MakePlan, tmp_path: Path, changes: dict[str, Any], code: str, message: str
):
    with pytest.raises(InputError, match=message) as caught:
        train(make_plan(**changes), tmp_path / "out")
    assert caught.value.code == code
    assert not (tmp_path / "out" / "metrics.jsonl").exists()

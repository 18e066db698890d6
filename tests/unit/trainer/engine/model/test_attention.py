"""Training computes attention as the base's config says: with its caps, its sinks and its windows."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from services.trainer.domain.auto import Choice, Facts, choose
from services.trainer.domain.packing import row_shape
from services.trainer.domain.plan import Plan
from services.trainer.engine.data.batches import Batch
from services.trainer.engine.forward import Forward
from services.trainer.engine.loss import Supervised
from services.trainer.engine.model import adapter
from services.trainer.engine.model.adapter import set_training
from services.trainer.engine.model.base import inspect_base
from services.trainer.engine.model.measured import measure
from services.trainer.engine.model.recompute import recompute_activations
from tests.unit.trainer.engine.model.conftest import SIZES, MakeModel, multimodal
from tests.unit.trainer.engine.test_training import a_sequence, packed, train

pytestmark = pytest.mark.torch

MakePlan = Callable[..., Plan]
ITEMS = [(a_sequence(32, 30, 1),), (a_sequence(20, 18, 2),)]
WINDOW = 8
BASES: dict[str, Callable[[], Any]] = {
    "Gemma2ForCausalLM": lambda: transformers.Gemma2Config(
        **SIZES, attn_logit_softcapping=2.0, sliding_window=WINDOW, query_pre_attn_scalar=8
    ),
    "GptOssForCausalLM": lambda: transformers.GptOssConfig(
        **SIZES, sliding_window=WINDOW, num_local_experts=4, num_experts_per_tok=2
    ),
    "MistralForCausalLM": lambda: transformers.MistralConfig(**SIZES, sliding_window=WINDOW),
    "Qwen2ForCausalLM": lambda: transformers.Qwen2Config(
        **SIZES, sliding_window=WINDOW, use_sliding_window=True, max_window_layers=0
    ),
    "Gemma3ForCausalLM": lambda: transformers.Gemma3TextConfig(**SIZES, sliding_window=WINDOW),
    "Gemma3ForConditionalGeneration": lambda: multimodal("gemma3"),
}


def loaded(plan: Plan) -> Any:
    facts = Facts(examples=40, trained_tokens=100, parameters=10**6, parameters_per_rank=1000)
    return adapter.load(plan, inspect_base(plan), choose(plan, facts, Choice(64, "")), torch.device("cpu"))


def reads(model: Any) -> tuple[Forward, Batch]:
    """How a run reads the model, and both sequences in the rows that suit it."""
    reading = measure(model, [item[0] for item in ITEMS], nullcontext)
    shape = row_shape(gpu=False, varlen=False, packed=reading.packed)
    return Forward(model, linear_head=reading.linear_head), packed(ITEMS, shape=shape)


def eager_losses(folder: Path) -> list[Any]:
    """The loss of each trained token, sequence by sequence and without padding, by transformers' plain attention."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    found = []
    for (sequence,) in ITEMS:
        ids = torch.from_numpy(sequence.tokens)
        with torch.no_grad():
            scores = model(input_ids=ids[None]).logits[0].log_softmax(-1)
        places = [place for place in range(1, len(ids)) if sequence.trained[place]]
        found.append(torch.stack([-scores[place - 1, ids[place]] for place in places]))
    return found


@pytest.fixture
def plan(make_plan: MakePlan, make_model: MakeModel) -> Callable[[str], Plan]:
    def make(name: str) -> Plan:
        folder = make_model(name, BASES[name](), scale=15.0)
        return make_plan(base={"id": "micro", "location": str(folder)}, lora={"quantization": "none"})

    return make


@pytest.mark.parametrize("name", BASES)
def test_the_loss_in_training_is_that_of_plain_attention(plan: Callable[[str], Plan], name: str):
    made = plan(name)
    model = loaded(made)
    forward, batch = reads(model)
    assert (batch.positions is None) == (name == "GptOssForCausalLM")
    set_training(model, True)  # there is no dropout
    expected = eager_losses(Path(made.base.location))
    sums = Supervised().sums(forward, batch)
    assert float(sums.loss.detach()) == pytest.approx(float(torch.cat(expected).sum()), rel=1e-4)
    with torch.no_grad():
        each = Supervised().each(forward, batch).loss
    torch.testing.assert_close(each, torch.stack([losses.sum() for losses in expected]), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", [name for name in BASES if name != "GptOssForCausalLM"])
def test_what_the_test_above_compares_depends_on_cap_and_window(plan: Callable[[str], Plan], name: str):
    folder = Path(plan(name).base.location)
    inputs = {"input_ids": torch.from_numpy(ITEMS[0][0].tokens)[None]}
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()(**inputs).logits
        other = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa", **without_windows(folder))
        difference = other.eval()(**inputs).logits - plain
    assert float(difference.abs().max()) > 0.1


def without_windows(folder: Path) -> dict[str, Any]:
    config = transformers.AutoConfig.from_pretrained(folder)
    config.get_text_config().sliding_window = 128
    return {"config": config}


@pytest.mark.parametrize(
    ("name", "implementation", "reason"),
    [
        ("Gemma2ForCausalLM", "eager", "caps its attention logits, which sdpa ignores"),
        ("GptOssForCausalLM", "eager", "has attention sinks, which sdpa ignores"),
        ("MistralForCausalLM", "sdpa", "the fastest that computes what the base's config asks for"),
        ("Gemma3ForConditionalGeneration", "sdpa", "the fastest"),
    ],
)
def test_the_choice_and_its_reason_are_reported(
    plan: Callable[[str], Plan], tmp_path: Path, name: str, implementation: str, reason: str
):
    short = {"n_epochs": 1, "batch_size": 20, "learning_rate": 0.01}
    made = Plan.model_validate({**plan(name).model_dump(mode="json"), "hyperparameters": short})
    result = train(made, tmp_path / "out")
    assert result.attention.startswith(f"{implementation}: ")
    written = json.loads((tmp_path / "out" / "hyperparameters.json").read_text())["attention"]
    assert written["value"] == implementation
    assert reason in written["reason"]
    card = (tmp_path / "out" / "adapter" / "README.md").read_text()
    assert reason in card
    chosen = json.loads((tmp_path / "out" / "hyperparameters.json").read_text())
    packed_rows = name != "GptOssForCausalLM"
    assert chosen["packing"]["value"] == packed_rows
    assert ("several documents a row" if packed_rows else "one document a row: in this base") in card
    assert chosen["linear_head"]["value"] == (name != "Gemma2ForCausalLM")


@pytest.mark.parametrize("name", ["Gemma2ForCausalLM", "Gemma3ForConditionalGeneration", "GptOssForCausalLM"])
def test_recomputed_activations_give_the_same_gradient(plan: Callable[[str], Plan], name: str):
    model = loaded(plan(name))
    forward, batch = reads(model)
    found = []
    for what in ("none", "attention", "half", "all"):
        recompute_activations(model, what)
        set_training(model, True)
        model.zero_grad()
        Supervised().sums(forward, batch).loss.backward()
        found.append({name: parameter.grad.clone() for name, parameter in adapter.trainable(model).items()})
    assert any(float(gradient.abs().max()) > 0 for gradient in found[0].values())
    for name, gradient in found[0].items():
        for other in found[1:]:
            torch.testing.assert_close(other[name], gradient, rtol=1e-4, atol=1e-4)


def test_no_document_changes_the_logits_of_another_of_a_capped_base(plan: Callable[[str], Plan]):
    forward, _ = reads(loaded(plan("Gemma2ForCausalLM")))
    set_training(forward.model, False)
    with torch.no_grad():
        alone, beside = forward.logits(packed(ITEMS[1:])), forward.logits(packed(ITEMS))
    owned = beside[packed(ITEMS).owners == 1]
    torch.testing.assert_close(owned, alone, rtol=1e-4, atol=1e-4)

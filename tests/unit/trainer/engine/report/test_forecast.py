"""What a run is planned with: facts of base and data; and a formula that is compared with what layers really save."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, MixtralConfig

from services.trainer.domain.auto import Choice, Facts, choose
from services.trainer.domain.fits import ON_CPU
from services.trainer.domain.layers import shape_of
from services.trainer.domain.memory_plan import Load, Shape, Way, layer_bytes
from services.trainer.domain.plan import Plan
from services.trainer.domain.recipe import Planner
from services.trainer.engine.data.batches import epoch_order
from services.trainer.engine.data.dataset import Dataset
from services.trainer.engine.data.tokens import Example
from services.trainer.engine.fast.adapters.fused import fuse
from services.trainer.engine.report.choices import choices, data_facts
from services.trainer.engine.report.forecast import device_facts, planner_of
from tests.unit.trainer.engine.report.bases import LLAMA_8B, facts_of

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
SMALL = {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 448, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 4, "num_key_value_heads": 1}
PLAN = {"job_id": "j", "model": "m", "base": {"id": "b", "location": "b"}, "train": "t.jsonl"}


def rows(*lengths: int) -> Dataset:
    made = [Example(np.zeros(n, dtype=np.int64), np.ones(n, dtype=np.bool_)) for n in lengths]
    return Dataset(tuple(((sequence,),) for sequence in made))


def _shape(config: Any) -> Shape:
    facts = facts_of(config)
    return shape_of(config, facts.parameters, facts.layers)


def _planner(facts: Any) -> Planner:
    plan = Plan.model_validate({**PLAN, "lora": {"r": 8}})
    return planner_of(plan, facts, choices(plan, facts.sizes, rows(10), None), CPU)


def test_the_sizes_of_a_base_are_those_of_its_config():
    found = _shape(LLAMA_8B)
    assert found == Shape(8_030_261_248, 6_979_321_856, 32, 4096, 32, 4096, 1024, 14_336, 128_256)


def test_a_token_meets_only_some_experts_and_how_long_that_takes_is_not_known():
    mixtral = facts_of(MixtralConfig(**SMALL, num_local_experts=8, num_experts_per_tok=2))
    assert shape_of(mixtral.config, mixtral.parameters, mixtral.layers).intermediate == 2 * 448
    assert _planner(mixtral).base.cost is None
    assert _planner(facts_of(LlamaConfig(**SMALL))).base.cost is not None


@pytest.mark.parametrize(
    "config",
    [
        transformers.GPTNeoXConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, vocab_size=128),
        transformers.MambaConfig(hidden_size=64, num_hidden_layers=2, vocab_size=128, state_size=8),
        transformers.BloomConfig(hidden_size=64, n_layer=2, n_head=2, vocab_size=128),
        transformers.Gemma3TextConfig(**{**SMALL, "head_dim": 32}),
    ],
    ids=lambda config: type(config).__name__,
)
def test_a_base_with_other_names_for_its_sizes_has_an_estimate_too(config: Any):
    plan = Plan.model_validate({**PLAN, "lora": {"r": 8}})
    facts = facts_of(config)
    planner = planner_of(plan, facts, choices(plan, facts.sizes, rows(30, 40), None), CPU)
    found = planner.plan("auto", [fit := ON_CPU[0]])
    estimate = planner.estimate(found, fit)
    assert estimate.memory_bytes > 0
    assert all(size > 0 for size in vars(planner.base.shape).values())


def test_the_data_say_how_much_is_read_in_all_and_at_most_in_a_step():
    plan = Plan.model_validate({**PLAN, "hyperparameters": {"n_epochs": 2, "batch_size": 2}, "lora": {"r": 8}})
    chosen = choose(plan, Facts(4, 100, 1000, 10, validation_examples=2), Choice(64, ""))
    found = data_facts(plan, chosen, rows(10, 20, 30, 40), rows(5, 7), epoch_order)
    assert (found.tokens, found.longest, found.steps) == (200, 40, 4)
    assert 50 <= found.most <= 70
    assert found.validated == 12 * 4
    assert data_facts(plan, chosen, rows(10), None, epoch_order).validated == 0


def test_a_device_has_the_memory_of_the_machine_where_it_is_no_gpu():
    found = device_facts(CPU)
    assert not found.cuda and found.total >= found.free > 0


@pytest.mark.parametrize(("fused", "dtype"), [(False, torch.bfloat16), (True, torch.bfloat16), (True, torch.float32)])
@pytest.mark.parametrize("inner", [192, 448])
@pytest.mark.parametrize("keys", [1, 4])
def test_a_layer_saves_what_the_formula_says(inner: int, keys: int, fused: bool, dtype: Any):
    """Fused layers as on a CPU, and PEFT's over bf16 weights, as on a GPU, but for attention, whose keys are not copied
    here."""

    def saved(layers: int, tokens: int = 256) -> int:
        config = {**SMALL, "intermediate_size": inner, "num_key_value_heads": keys, "num_hidden_layers": layers}
        model = transformers.LlamaForCausalLM(LlamaConfig(**config)).to(dtype)
        model.requires_grad_(False)
        tuned = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
        if fused:
            fuse(tuned)
        weights = {parameter.untyped_storage().data_ptr() for parameter in tuned.parameters()}
        found: dict[int, int] = {}
        kept = []

        def keep(tensor: Any) -> Any:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                found[storage.data_ptr()] = storage.nbytes()
                kept.append(tensor)  # so that its memory is not used again
            return tensor

        tokens_of_a_row = torch.zeros(1, tokens, dtype=torch.int64)
        precision = nullcontext() if fused else torch.autocast("cpu")
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), precision:
            tuned.base_model.model.model(input_ids=tokens_of_a_row, use_cache=False)
        return sum(found.values())

    shape = Shape(0, 0, 1, 128, 4, 128, 32 * keys, inner, 512)
    way = Way("none", cuda=False, fused=fused, width=dtype.itemsize)
    expected = layer_bytes(shape, way, Load(256, 256))
    assert (saved(3) - saved(2)) / 256 == pytest.approx(expected, rel=0.1)

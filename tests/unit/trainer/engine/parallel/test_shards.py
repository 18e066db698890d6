"""Layers that are divided among two processes, which are both in this one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from services.trainer.engine.fast.adapters.fused import fuse
from services.trainer.engine.fast.dress import in_8_bits
from services.trainer.engine.model.memory import Memory
from services.trainer.engine.model.offload import Offload
from services.trainer.engine.model.recompute import recompute_activations
from services.trainer.engine.parallel.group import Group
from services.trainer.engine.parallel.loading import Divided, shards_of
from services.trainer.engine.parallel.peers import Place
from services.trainer.engine.parallel.shards import Shards
from shared.errors import InputError
from tests.unit.trainer.engine.fast import models
from tests.unit.trainer.engine.fast.models import gradients_of, with_adapter

pytestmark = pytest.mark.torch

NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
LAYERS = 3
PASS = [2, 1, 0, 1]
"""What a pass up and down puts together, which begins with the layers 0 and 1 there."""


class Both(Group):
    """Knows the parts of both processes. `gathered`: the layers that were put together, in this order. `most_items`:
    what the other process has."""

    size = 2

    def __init__(self, first: Shards, second: Shards) -> None:
        self._parts = [[layer.part for layer in each._layers if layer is not None] for each in (first, second)]
        self.gathered: list[int] = []
        self.most_items = 0
        self.agreed = 0

    def most(self, here: int) -> int:
        self.agreed += 1
        return max(here, self.most_items)

    def any(self, here: bool) -> bool:
        self.agreed += 1
        return here

    def gather(self, whole: Any, part: Any) -> Callable[[], None]:
        [number] = [at for parts in self._parts for at, each in enumerate(parts) if each is part]
        self.gathered.append(number)
        whole.fill_(255)  # nothing that was there is used any more
        return lambda: whole.copy_(torch.cat([parts[number] for parts in self._parts]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base")
    config = {**models.SIZES, "num_hidden_layers": LAYERS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "SIZES", config)
        models.small_base(dtype=torch.float32).save_pretrained(path)
    return path


def load(folder: Path, quantization: Any, dtype: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, quantization_config=quantization, device_map={"": "cpu"}
    ).requires_grad_(False)


def divided(folder: Path, quantization: str, dtype: Any) -> tuple[Any, Shards, Both]:
    """The model of the first process."""
    model, other = (load(folder, Divided(quantization, Place(number, 2)), dtype) for number in (0, 1))
    shards, others = shards_of(model), shards_of(other)
    assert shards is not None
    assert others is not None
    both = Both(shards, others)
    tuned = with_adapter(model).train()
    assert shards_of(tuned) is shards
    shards.join(both, tuned)
    return tuned, shards, both


def whole(folder: Path, quantization: str, dtype: Any) -> Any:
    config = BitsAndBytesConfig(**NF4, bnb_4bit_compute_dtype=dtype) if quantization == "nf4" else None
    model = with_adapter(load(folder, config, dtype)).train()
    if quantization == "fp8":
        in_8_bits(model)
    return model


@pytest.mark.parametrize("recompute", ["none", "attention", "half", "all", "offloaded"])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    ("quantization", "dtype"), [("nf4", torch.float32), ("none", torch.float64), ("fp8", torch.float64)]
)
def test_a_divided_base_has_the_gradients_of_a_whole_one(
    folder: Path, quantization: str, dtype: Any, fused: bool, recompute: str
):
    model, _, both = divided(folder, quantization, dtype)
    reference = whole(folder, quantization, dtype)
    if fused:
        assert not fuse(model)
    if recompute == "offloaded":
        recompute_activations(model, "all", Offload(torch.device("cpu")))
    else:
        recompute_activations(model, recompute)
    for _ in range(2):  # the second pass begins where the first has ended
        expected, found = gradients_of(reference), gradients_of(model)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            assert torch.allclose(found[name].to(gradient.dtype), gradient, rtol=1e-5, atol=1e-6), name
    assert both.gathered[:7] == [0, 1, 2, 1, 0, 1, 2]  # the next one is always on its way, the last one stays


@pytest.mark.parametrize(("quantization", "bytes_each"), [("nf4", 0.5 + 1 / 64 + 1 / 64), ("none", 4), ("fp8", 2)])
def test_a_process_keeps_half_of_the_weights_and_two_layers(folder: Path, quantization: str, bytes_each: float):
    model, shards, _ = divided(folder, quantization, torch.float32)
    layers = [
        sum(module.weight.numel() for module in layer.modules() if hasattr(module, "frozen_weight"))
        for layer in model.get_base_model().model.layers
    ]
    assert shards.kept_bytes == pytest.approx(sum(layers) * bytes_each / 2, rel=0.2)
    assert shards.buffer_bytes == pytest.approx(2 * layers[0] * bytes_each, rel=0.2)
    held = {
        parameter.untyped_storage().data_ptr(): parameter.untyped_storage().nbytes() for parameter in model.parameters()
    }
    others = 4 * (2 * 64 * 64 + sum(p.numel() for p in model.parameters() if p.requires_grad))  # embeddings and head
    assert sum(held.values()) == pytest.approx(others, rel=0.05)  # nothing is left of the weights in their modules


def passes(model: Any) -> Callable[[int], bool]:
    def one(_: int) -> bool:
        gradients_of(model)
        return True

    return one


def test_who_has_fewer_passes_than_others_goes_along(folder: Path):
    model, shards, both = divided(folder, "none", torch.float32)
    fuse(model)
    assert shards.each([1, 2, 3], passes(model), returns=True)
    assert both.gathered == [0, 1, *PASS * 3]
    both.most_items = 3
    for items in ([1], []):
        both.gathered.clear()
        assert shards.each(items, passes(model), returns=True)
        assert both.gathered == PASS * 3
    both.gathered.clear()
    assert not shards.each([1, 2, 3], lambda item: item < 2 and passes(model)(item), returns=True)  # asked to stop
    assert both.gathered == PASS * 3


@pytest.mark.parametrize("within", ["forward", "backward", "between"])
def test_who_runs_out_of_memory_goes_along_to_the_end(folder: Path, within: str):
    model, shards, both = divided(folder, "none", torch.float32)
    fuse(model)
    shards.each([1, 2], passes(model), returns=True)
    down = model.get_base_model().model.layers[1].mlp.down_proj
    calls = iter(range(1, 100))

    def short(*_: Any) -> None:
        if next(calls) == 2:
            raise torch.cuda.OutOfMemoryError

    def work(item: int) -> bool:
        if within == "between":
            short()
        return passes(model)(item)

    if within == "forward":
        down.register_forward_pre_hook(short)
    elif within == "backward":
        model.get_base_model().model.layers[1].register_full_backward_hook(short)
    both.gathered.clear()
    with pytest.raises(torch.cuda.OutOfMemoryError):
        shards.each([1, 2], work, returns=True)
    assert both.gathered == PASS * 2
    assert shards.each([1], passes(model), returns=True)


def test_passes_without_gradients_go_up_only(folder: Path):
    model, shards, both = divided(folder, "none", torch.float32)
    tokens = torch.arange(24)[None] % 64

    def read(_: int) -> bool:
        with torch.no_grad():
            model(input_ids=tokens)
        return True

    both.most_items = 3
    assert shards.each([1], read, returns=False)
    assert both.gathered == [0, 1, 2] * 3 + [0]


def test_layers_in_another_order_are_refused(folder: Path):
    model, _, _ = divided(folder, "none", torch.float32)
    layers = model.get_base_model().model.layers
    layers[0], layers[2] = layers[2], layers[0]
    with pytest.raises(InputError, match="one after the other"):
        gradients_of(model)


@pytest.mark.parametrize("module", ["o_proj", "layers.2.mlp.down_proj"])
def test_an_adapter_on_some_layers_only(folder: Path, module: str):
    """Nothing asks for the lowest layers on the way down; all processes walk there all the same."""
    model, shards, both = divided(folder, "none", torch.float32)
    fuse(model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and module not in name:
            parameter.requires_grad_(False)
    shards.each([1, 2], passes(model), returns=True)
    assert both.gathered == [0, 1, *PASS * 2]


def test_memory_that_runs_out_where_the_others_would_wait_ends_the_training(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    model, shards, both = divided(folder, "none", torch.float32)
    memory = Memory(model, torch.device("cpu"), longest=24, group=both, shards=shards)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, 24 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 24 * 2**30)

    def work(_: int) -> None:
        raise torch.cuda.OutOfMemoryError

    with pytest.raises(InputError, match="one row of 24 tokens"):
        memory.within(work)
    assert not both.agreed

"""Recomputed layers whose inputs wait in the memory of the host: nothing changes but where these are."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from services.trainer.engine.fast.adapters import gated_mlp
from services.trainer.engine.fast.adapters.fused import fuse
from services.trainer.engine.fast.adapters.mlps import Mlps
from services.trainer.engine.model import offload as offloading
from services.trainer.engine.model.memory import Memory
from services.trainer.engine.model.offload import Buffers, Offload, host_free
from services.trainer.engine.model.recompute import recompute_activations
from tests.unit.trainer.engine.fast.models import small_model

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")


def plain(size: int) -> Any:
    return torch.empty(size, dtype=torch.uint8)


def model_with(what: str, offload: Offload | None, dropout: float, model_class: str = "Llama") -> Any:
    model = small_model(model_class).train()
    fuse(model)
    for module in model.modules():
        adapters = module if isinstance(module, torch.nn.ModuleDict) and "default" in module else {}
        if dropout and isinstance(adapters and adapters["default"], torch.nn.Identity):
            module["default"] = torch.nn.Dropout(dropout)
    recompute_activations(model, what, offload)
    return model


def step(model: Any, rows: tuple[int, ...]) -> list[Any]:
    """The losses of micro-batches with so many rows, and the gradients that they add up to."""
    torch.manual_seed(5)
    model.zero_grad()
    losses = []
    for number, count in enumerate(rows):
        tokens = torch.randint(0, 64, (count, 24), generator=torch.Generator().manual_seed(number))
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        losses.append(loss.detach())
    return [*losses, *(parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad)]


def same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(torch.equal(*pair) for pair in zip(one, other, strict=True))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("model_class", ["Llama", "Gemma2", "GPTNeoX"])
def test_gradients_are_those_of_other_checkpoints_and_of_none(model_class: str, dropout: float):
    offload = Offload(CPU)
    found = model_with("all", offload, dropout, model_class)
    for rows in ((1, 3, 2), (2,)):
        expected = step(model_with("all", None, dropout, model_class), rows)
        assert same(step(found, rows), expected)
        assert same(step(model_with("none", None, dropout, model_class), rows), expected)
    assert offload.buffers.allocated


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("model_class", "passes"), [("Llama", 1), ("Qwen3", 1), ("Olmo2", 2)])
def test_mlps_go_backward_from_their_inputs_by_some_tokens_at_a_time(
    model_class: str, passes: int, late: bool, monkeypatch: pytest.MonkeyPatch
):
    """And forward only once, unless a norm after them is to be computed again."""
    expected = step(model_with("none", None, 0.0, model_class), (3, 1, 2))
    monkeypatch.setattr(gated_mlp, "PIECE", 20)
    if late:
        monkeypatch.setattr(offloading, "_Copies", Late)
    model, offload = model_with("none", None, 0.0, model_class), Offload(CPU, plain)
    Mlps(model).put_in()
    recompute_activations(model, "all", offload)
    in_pieces, calls = gated_mlp.in_pieces, []
    monkeypatch.setattr(gated_mlp, "in_pieces", lambda *given, **named: calls.append(1) or in_pieces(*given, **named))
    for _ in range(2):
        for one, other in zip(step(model, (3, 1, 2)), expected, strict=True):
            assert torch.allclose(one, other, rtol=1e-7, atol=1e-12)
    assert len(calls) == 2 * 3 * 2 * passes  # twice, three micro-batches through two layers
    assert offload.buffers.allocated == 2 * 2  # of each layer and its MLP
    calls.clear()
    recompute_activations(model, "none", None)
    step(model, (1,))
    assert not calls


def test_mlps_of_a_lean_run_that_became_one_operation_later_go_backward_by_themselves(
    monkeypatch: pytest.MonkeyPatch,
):
    """The search for what fits begins before they are."""
    model = model_with("none", None, 0.0)
    memory = Memory(model, CPU, longest=24, lean=True, offload=Offload(CPU, plain))
    Mlps(model).put_in()
    memory.use(memory.fit)
    in_pieces, calls = gated_mlp.in_pieces, []
    monkeypatch.setattr(gated_mlp, "in_pieces", lambda *given, **named: calls.append(1) or in_pieces(*given, **named))
    step(model, (1,))
    assert len(calls) == 2


def test_buffers_are_used_again_and_grow():
    sizes: list[int] = []

    def allocate(size: int) -> Any:
        sizes.append(size)
        return plain(size)

    offload = Offload(CPU, allocate)
    model = model_with("all", offload, 0.0)
    gc.disable()  # they come back without its help
    try:
        step(model, (2, 1, 2))
        assert sizes == [2**15] * 2  # one for each layer: two rows of 24 tokens have 24,576 bytes
        step(model, (1, 2))
        assert len(sizes) == 2
        step(model, (3, 2))
        assert sizes[2:] == [2**16] * 2
    finally:
        gc.enable()


def test_the_inputs_are_on_the_host_until_they_are_wanted():
    """Whoever looks between the two passes finds only the newest one on the device."""
    offload = Offload(CPU, plain)
    layers = [torch.nn.Linear(8, 8, dtype=torch.float64) for _ in range(4)]
    begin = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    given: list[int] = []

    def run(layer: Any, hidden: Any) -> Any:
        given.append(hidden.data_ptr())
        return layer(hidden).tanh().exp()  # these save their results, so they are recomputed

    hidden = begin
    for layer in layers:
        hidden = offload.checkpoint(partial(run, layer), hidden)
    there = given[-1]
    given.clear()
    hidden.sum().backward()
    assert given[0] == there
    assert begin.data_ptr() not in given  # the first one came back from the host
    expected = begin.detach().requires_grad_()
    hidden = expected
    for layer in layers:
        hidden = run(layer, hidden)
    hidden.sum().backward()
    assert torch.equal(begin.grad, expected.grad)


class Late:
    """Copies that are made as late as a GPU may make them: when the computing stream waits for them. Until then, what
    they write is not a number, and so it stays if what they read is gone."""

    def __init__(self, _device: Any) -> None:
        self._pending: list[tuple[int, Any, Any]] = []
        self._begun = 0

    def computing(self) -> Late:
        return self

    def copy(self, source: Any, target: Any) -> int:
        self._begun += 1
        target.fill_(torch.nan)
        self._pending.append((self._begun, weakref.ref(source), weakref.ref(target)))
        return self._begun

    def wait_event(self, event: int) -> None:
        while self._pending and self._pending[0][0] <= event:
            _, source, target = self._pending.pop(0)
            if source() is not None and target() is not None:
                target().copy_(source())


def test_no_memory_is_used_or_given_back_before_its_copy_is_over(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(offloading, "_Copies", Late)
    expected = step(model_with("all", None, 0.0), (2, 1, 2))
    model = model_with("all", Offload(CPU, plain), 0.0)
    for _ in range(2):
        assert same(step(model, (2, 1, 2)), expected)


@pytest.mark.parametrize("within", ["forward", "backward"])
def test_an_error_leaves_nothing_behind(within: str):
    offload = Offload(CPU, plain)
    model = model_with("all", offload, 0.0)
    expected = step(model_with("all", None, 0.0), (2,))
    last = model.get_base_model().model.layers[1]
    calls = iter(range(1, 10))

    def short(*_: Any) -> None:
        if next(calls) == (1 if within == "forward" else 2):
            raise torch.cuda.OutOfMemoryError

    hook = last.mlp.register_forward_pre_hook(short)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        step(model, (2,))
    hook.remove()
    gc.collect()
    before = offload.buffers.allocated
    assert offload._newest() is None  # no tensor is held for a pass that is over
    assert same(step(model, (2,)), expected)
    assert offload.buffers.allocated == max(2, before)


def twice(hidden: Any, *, scale: Any, other: Any) -> tuple[Any, Any]:
    return (hidden * scale).sin() * other, (hidden + scale).cos()


@pytest.mark.parametrize("named", [False, True])
def test_layers_may_take_what_has_a_gradient_by_name_and_return_several(named: bool):
    found = []
    buffers = []
    for offload in (Offload(CPU, plain), None):
        hidden, scale = (torch.full((3, 4), value, requires_grad=True) for value in (0.5, 0.25))
        other = torch.ones(3, 4)
        use = checkpoint if offload is None else offload.checkpoint
        options = {"use_reentrant": False} if offload is None else {}
        if named:
            results = use(partial(twice, hidden=hidden, scale=scale, other=other), **options)
        else:
            results = use(partial(twice, other=other, scale=scale), hidden, **options)
        sum(result.sum() for result in results).backward()
        found.append([hidden.grad, scale.grad])
        buffers.append(offload.buffers.allocated if offload else 0)
    assert same(*found)
    assert buffers == [2, 0]  # `other` has no gradient, and stays


def test_a_second_backward_pass_through_the_same_graph_is_right():
    offload = Offload(CPU, plain)
    hidden = torch.full((3,), 0.5, requires_grad=True)
    result = offload.checkpoint(torch.sin, offload.checkpoint(torch.exp, hidden)).sum()
    (one,) = torch.autograd.grad(result, hidden, retain_graph=True)
    (other,) = torch.autograd.grad(result, hidden)
    assert torch.equal(one, other)
    assert torch.allclose(one, hidden.exp() * hidden.exp().cos())


def test_without_gradients_and_in_evaluation_nothing_is_kept():
    offload = Offload(CPU, plain)
    model = model_with("all", offload, 0.0)
    tokens = torch.zeros(1, 24, dtype=torch.int64)
    with torch.no_grad():
        model(input_ids=tokens)
    model.eval()
    model(input_ids=tokens)
    assert offload.buffers.allocated == 0


def test_where_the_host_has_no_memory_to_pin_the_inputs_stay_and_it_is_said():
    def allocate(_size: int) -> Any:
        raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be")

    offload = Offload(CPU, allocate)
    assert same(step(model_with("all", offload, 0.0), (1, 2)), step(model_with("all", None, 0.0), (1, 2)))
    assert offload.refused == "the host gives no pinned memory: CUDA error: out of memory"


def test_a_layer_that_changes_its_input_in_place_is_refused():
    hidden = torch.ones(3, requires_grad=True) * 2
    with pytest.raises(RuntimeError, match="in place"):
        Offload(CPU, plain).checkpoint(lambda value: value.mul_(2).sin(), hidden)


def test_other_ways_to_recompute_do_not_use_it():
    offload = Offload(CPU, plain)
    for what in ("none", "attention", "half"):
        model = model_with("all", offload, 0.0)
        recompute_activations(model, what, offload)
        step(model, (1,))
        assert offload.buffers.allocated == 0


def test_buffers_of_another_size_are_not_kept():
    buffers = Buffers(plain)
    small = buffers.take(100)
    large = buffers.take(1000)
    buffers.give(small)
    buffers.give(large)
    assert buffers.take(10).numel() == 1024
    assert buffers.allocated == 2


def test_the_host_says_how_much_it_has():
    assert 0 < host_free() < 2**50

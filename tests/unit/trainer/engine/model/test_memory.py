"""What happens when the GPU's memory runs out."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from services.trainer.domain.fits import ON_GPU, Fit
from services.trainer.engine.model import memory as module
from services.trainer.engine.model.memory import (
    Memory,
    forget_failed_try,
    garbage_apart,
    gpu_in_use,
    load_onto_device,
)
from shared.errors import InputError, TransientError

pytestmark = pytest.mark.torch


class Model(torch.nn.Linear):
    """Notes which activations are recomputed."""

    recomputed = "none"


@pytest.fixture(autouse=True)
def noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "recompute_activations", lambda model, what, _: setattr(model, "recomputed", what))


@pytest.fixture
def memory() -> Memory:
    return Memory(Model(2, 2), SimpleNamespace(type="cuda"), longest=777)


def test_micro_batches_shrink_until_they_fit(memory: Memory):
    tried: list[tuple[Fit, str]] = []

    def work(micro_tokens: int) -> float:
        tried.append((memory.fit, memory.model.recomputed))
        drawn = float(torch.rand(()))
        if micro_tokens > 2048:
            raise torch.cuda.OutOfMemoryError
        return drawn

    torch.manual_seed(3)
    drawn = memory.within(work)
    assert [fit for fit, _ in tried] == list(ON_GPU[: len(tried)])
    assert all(recomputed == fit.recomputed for fit, recomputed in tried)
    assert memory.fit == Fit(micro_tokens=2048, recompute=True)
    torch.manual_seed(3)
    assert drawn == float(torch.rand(()))  # what the failed tries drew was undone
    assert memory.within(lambda micro_tokens: micro_tokens) == 2048  # and it is not tried again


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_lean_run_recomputes_from_the_start(device: str):
    memory = Memory(Model(2, 2), SimpleNamespace(type=device), longest=777, lean=True)
    tried: list[bool] = []

    def work(micro_tokens: int) -> int:
        tried.append(memory.fit.again == 1.0 and memory.model.recomputed == "all")
        if device == "cuda" and micro_tokens > 2048:
            raise torch.cuda.OutOfMemoryError
        return micro_tokens

    assert memory.within(work) == (2048 if device == "cuda" else 1024)
    assert all(tried)


def gpu(monkeypatch: pytest.MonkeyPatch, *, free: int, total: int = 24, ours: int = 0) -> None:
    """A GPU with so many GiB free, of which this process has `ours`."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free * 2**30, total * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: ours * 2**30)


def full(*_: Any) -> None:
    raise torch.cuda.OutOfMemoryError


@pytest.mark.parametrize(("free", "ours", "waits"), [(9, 0, False), (3, 6, False), (3, 0, True), (2, 2, True)])
def test_memory_that_others_hold_beyond_their_share_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, free: int, ours: int, waits: bool
):
    """Of 24 GiB vLLM may have 14.4. A training that died, or another program, may hold the rest for a while."""
    gpu(monkeypatch, free=free, ours=ours)
    memory = Memory(Model(2, 2), SimpleNamespace(type="cuda"), longest=777, served=0.6)
    for call in (lambda: load_onto_device(full, memory.device, 0.6), lambda: memory.within(full)):
        with pytest.raises(TransientError if waits else InputError) as got:
            call()
        assert ("other processes hold" in str(got.value)) == waits
        assert "\n" not in str(got.value)
        memory.fit = ON_GPU[0]


@pytest.mark.parametrize("words", ["out of memory", "CUDA-capable device(s) is/are busy or unavailable"])
def test_a_gpu_that_others_have_altogether_is_waited_for(words: str):
    with pytest.raises(TransientError, match="other processes have the whole GPU"), gpu_in_use():
        raise RuntimeError(f"CUDA error: {words}\nCUDA kernel errors might be asynchronously reported")
    with pytest.raises(RuntimeError, match="an illegal memory access"), gpu_in_use():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_when_nothing_fits_the_user_is_told_what_to_lower(memory: Memory, monkeypatch: pytest.MonkeyPatch):
    gpu(monkeypatch, free=1)

    def work(_micro_tokens: int) -> None:
        raise torch.cuda.OutOfMemoryError

    with pytest.raises(
        InputError, match=r"one row of 777 tokens: lower .*max_length, .*batch_size or lora.r"
    ) as caught:
        memory.within(work)
    assert caught.value.code == "out_of_memory"


def test_a_base_that_does_not_fit_beside_vllm_is_told_with_what_is_free(monkeypatch: pytest.MonkeyPatch):
    gpu(monkeypatch, free=3)

    def load() -> None:
        raise torch.cuda.OutOfMemoryError

    with pytest.raises(InputError, match=r"3\.0 of 24\.0 GiB were free.*GPU_MEMORY_UTILIZATION.*alternate") as caught:
        load_onto_device(load, SimpleNamespace(type="cuda"))
    assert (caught.value.code, caught.value.param) == ("out_of_memory", "model")


def test_a_continued_run_takes_the_fit_it_had(memory: Memory):
    memory.use(Fit(micro_tokens=8192, recompute=True))
    assert memory.within(lambda micro_tokens: micro_tokens) == 8192
    assert memory.model.recomputed == "all"
    memory.use(Fit(micro_tokens=5, recompute=False))  # of another kind of device
    assert memory.fit.micro_tokens == 8192


def test_what_a_failed_try_had_is_freed_though_the_garbage_collector_left_it_alone():
    model = Model(2, 2)
    model.itself = [model]
    gone = weakref.ref(model)
    with pytest.raises(InputError), garbage_apart():
        assert gc.get_freeze_count() > 1000
        raise InputError("out_of_memory", "the attempt failed")
    del model
    forget_failed_try()
    assert gone() is None

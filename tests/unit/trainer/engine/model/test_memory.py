"""What happens when the GPU's memory runs out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from services.trainer.engine.model.memory import ON_GPU, Fit, Memory, load_onto_device
from shared.errors import InputError

pytestmark = pytest.mark.torch


class Model(torch.nn.Linear):
    """Notes whether activations are recomputed."""

    recompute = False

    def enable_input_require_grads(self) -> None: ...

    def gradient_checkpointing_enable(self, **_: Any) -> None:
        self.recompute = True

    def gradient_checkpointing_disable(self) -> None:
        self.recompute = False


@pytest.fixture
def memory() -> Memory:
    return Memory(Model(2, 2), SimpleNamespace(type="cuda"), longest=777)


def test_micro_batches_shrink_until_they_fit(memory: Memory):
    tried: list[tuple[Fit, bool]] = []

    def work(micro_tokens: int) -> float:
        tried.append((memory.fit, memory.model.recompute))
        drawn = float(torch.rand(()))
        if micro_tokens > 2048:
            raise torch.cuda.OutOfMemoryError
        return drawn

    torch.manual_seed(3)
    drawn = memory.within(work)
    assert [fit for fit, _ in tried] == list(ON_GPU[: len(tried)])
    assert all(recompute == fit.recompute for fit, recompute in tried)
    assert memory.fit == Fit(micro_tokens=2048, recompute=True)
    torch.manual_seed(3)
    assert drawn == float(torch.rand(()))  # what the failed tries drew was undone
    assert memory.within(lambda micro_tokens: micro_tokens) == 2048  # and it is not tried again


def test_when_nothing_fits_the_user_is_told_what_to_lower(memory: Memory):
    def work(_micro_tokens: int) -> None:
        raise torch.cuda.OutOfMemoryError

    with pytest.raises(
        InputError, match=r"one row of 777 tokens: lower .*max_length, .*batch_size or lora.r"
    ) as caught:
        memory.within(work)
    assert caught.value.code == "out_of_memory"


def test_a_base_that_does_not_fit_beside_vllm_is_told_with_what_is_free(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (3 * 2**30, 24 * 2**30))

    def load() -> None:
        raise torch.cuda.OutOfMemoryError

    with pytest.raises(InputError, match=r"3\.0 of 24\.0 GiB were free.*GPU_MEMORY_UTILIZATION.*alternate") as caught:
        load_onto_device(load, SimpleNamespace(type="cuda"))
    assert (caught.value.code, caught.value.param) == ("out_of_memory", "model")


def test_a_continued_run_takes_the_fit_it_had(memory: Memory):
    memory.use(Fit(micro_tokens=8192, recompute=True))
    assert memory.within(lambda micro_tokens: micro_tokens) == 8192
    assert memory.model.recompute
    memory.use(Fit(micro_tokens=5, recompute=False))  # of another kind of device
    assert memory.fit.micro_tokens == 8192

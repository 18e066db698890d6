"""What a token costs by the shape of the base, and the memory that the process uses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import MixtralConfig

from services.trainer.engine.data.dataset import Dataset
from services.trainer.engine.data.tokens import Example
from services.trainer.engine.report.usage import cost_of, memory_in_use
from tests.unit.trainer.engine.report.bases import LLAMA_8B, facts_of

pytestmark = pytest.mark.torch

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
MIXTRAL = MixtralConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, num_local_experts=2
)


def rows(*lengths: int, trained: float) -> Dataset:
    """One sequence of each length, whose last part is trained on."""
    made = [Example(np.zeros(n, dtype=np.int64), np.arange(n) >= n - round(trained * n)) for n in lengths]
    return Dataset(tuple(((sequence,),) for sequence in made))


@pytest.fixture(autouse=True)
def h100(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")


def test_the_cost_of_an_8b_shape_is_that_of_its_matrices_its_attention_and_its_trained_positions() -> None:
    llama = facts_of(LLAMA_8B)
    found = cost_of(llama, rows(400, 1600, trained=0.25), GPU)
    assert found is not None and found.peak == 989e12
    layers, head = 6_979_321_856, 128_256 * 4096
    assert found.matmuls == pytest.approx(layers + 0.25 * head)
    assert found.attention == pytest.approx(2 * 32 * 4096 * (400**2 + 1600**2) / 2000)
    # the bound of about 26,000 tokens/s, which counts the head everywhere and no attention, at 787 TFLOP/s
    assert found.mfu(26_000, recompute=False) == pytest.approx(0.79, abs=0.06)


def test_there_is_no_mfu_where_it_would_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    some = rows(100, trained=1.0)
    assert cost_of(facts_of(MIXTRAL), some, GPU) is None, "a token meets only some of the experts"
    assert cost_of(facts_of(LLAMA_8B), some, CPU) is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Something New 9000")
    assert cost_of(facts_of(LLAMA_8B), some, GPU) is None


def test_a_process_without_a_gpu_tells_its_own_memory() -> None:
    before, peak = memory_in_use(CPU)
    held = np.ones(2**25)  # 256 MiB
    now, later_peak = memory_in_use(CPU)
    assert now - before > 0.9 * held.nbytes
    assert 0 < before <= peak and now <= later_peak

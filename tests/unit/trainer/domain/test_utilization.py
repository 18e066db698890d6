"""The share of a GPU's peak that a training reaches."""

from __future__ import annotations

import pytest

from services.trainer.domain.utilization import Cost, attention_flops, peak_flops


@pytest.mark.parametrize(
    ("device", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 NVL", 835.0),
        ("NVIDIA H200", 989.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A100-PCIE-40GB", 312.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L40", 181.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA RTX 6000 Ada Generation", 364.2),
        ("NVIDIA B200", 2250.0),
        ("NVIDIA GH200 480GB", 989.0),
    ],
)
def test_the_peak_of_a_gpu_is_found_by_the_name_that_its_driver_gives(device: str, tflops: float) -> None:
    assert peak_flops(device) == tflops * 1e12


@pytest.mark.parametrize(
    "device",
    [
        *("", "cpu", "Tesla T4", "NVIDIA L400"),
        *("NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D", "NVIDIA H100 80GB HBM3 MIG 1g.10gb"),
    ],
)
def test_a_device_that_is_not_known_has_no_peak(device: str) -> None:
    assert peak_flops(device) is None


def test_the_bound_of_an_8b_shape_is_that_of_the_measured_matrix_product() -> None:
    """7.5 G parameters in matrix products at 787 TFLOP/s: about 26,000 tokens/s, 17,500 with recomputation."""
    llama = Cost(matmuls=7.5e9, attention=0.0, peak=787e12)
    assert llama.mfu(26_233, recompute=False) == pytest.approx(1.0, rel=1e-3)
    assert llama.mfu(17_489, recompute=True) == pytest.approx(1.0, rel=1e-3)


def test_attention_counts_the_lower_half_of_each_sequence_by_itself() -> None:
    # two sequences of 4 tokens: 2 products x 2 FLOPs x 16 pairs x width / 2, per layer and sequence
    assert attention_flops(squares=2 * 16, tokens=8, layers=3, width=10) == 2 * 3 * (2 * 2 * 16 * 10 / 2) / 8
    assert Cost(0.0, 1.0, 1.0).flops(recompute=False) == 3.0
    assert Cost(0.0, 1.0, 1.0).flops(recompute=True) == 4.0

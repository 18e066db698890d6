"""The estimate of memory and time, compared with what was measured, and for bases and GPUs of every size."""

from __future__ import annotations

import pytest

from services.trainer.domain.fits import Part
from services.trainer.domain.memory_plan import (
    GIB,
    Amount,
    Load,
    Need,
    Shape,
    Way,
    begin,
    need,
    seconds,
    tokens_per_second,
)
from services.trainer.domain.utilization import Cost, attention_flops

LLAMA_8B = Shape(8_030_261_248, 6_979_321_856, 32, 4096, 32, 4096, 1024, 14_336, 128_256)
LLAMA_1B = Shape(1_235_814_400, 973_078_528, 16, 2048, 32, 2048, 512, 8192, 128_256)
SMOLLM2 = Shape(134_515_008, 106_168_320, 30, 576, 9, 576, 192, 1536, 49_152)
LLAMA_70B = Shape(70_553_706_496, 68_451_041_280, 80, 8192, 64, 8192, 1024, 28_672, 128_256)
BASES = {"135M": SMOLLM2, "1B": LLAMA_1B, "8B": LLAMA_8B, "70B": LLAMA_70B}
ADAPTERS = {"135M": 4_884_480, "1B": 11_272_192, "8B": 41_943_040, "70B": 207_093_760}
"""Of rank 16 on all linear layers."""
QKVO = 13_631_488
MASKED = {"attention": "sdpa", "shares_keys": False}
"""How the packed rows of the first measurements were read, of which the longest step had 8,760 tokens."""
LAB = {"fused": True, "shares_keys": False}
LEAN = {"fused": True, "whole_mlp": True, "offload": True}


@pytest.mark.parametrize(
    ("base", "quantization", "adapter", "load", "changes", "recompute", "measured", "within"),
    [
        # this engine with PEFT's layers, one H200
        ("8B", "nf4", None, Load(8760, 1752), MASKED, False, 99, 0.2),
        ("8B", "none", None, Load(8760, 1752), MASKED, False, 123, 0.2),
        ("135M", "nf4", None, Load(8760, 1752), MASKED, False, 8, 0.25),
        ("135M", "none", None, Load(8760, 1752), MASKED, False, 9, 0.25),
        # this engine with whole MLPs, one H100; the longest step had 10,705 tokens
        ("8B", "nf4", None, Load(10_752, 10_752), {"fused": True, "whole_mlp": True}, False, 42.3, 0.03),
        ("8B", "fp8", None, Load(10_752, 10_752), {"fused": True, "whole_mlp": True}, False, 52.0, 0.03),
        # the same, with MLPs that go backward by themselves; the longest step had 10,371 tokens
        ("8B", "nf4", None, Load(10_496, 10_496), LEAN, True, 7.33, 0.03),
        # the lab's loop with fused layers; its head takes less memory than ours
        ("8B", "nf4", None, Load(8192, 8192), LAB, False, 43, 0.15),
        ("8B", "none", None, Load(8192, 8192), LAB, False, 53, 0.15),
        ("8B", "fp8", None, Load(8192, 8192), LAB, False, 53, 0.15),
        ("8B", "fp8", None, Load(16384, 8192), LAB, False, 91, 0.15),
        ("8B", "nf4", QKVO, Load(8192, 8192), {**LAB, "tuned_mlp": False}, False, 34, 0.15),
        ("8B", "nf4", QKVO, Load(8192, 8192), {**LAB, "tuned_mlp": False}, True, 8.8, 0.25),
    ],
)
def test_the_peak_is_near_what_was_measured(
    base: str,
    quantization: str,
    adapter: int | None,
    load: Load,
    changes: dict[str, bool | str],
    recompute: bool,
    measured: float,
    within: float,
):
    way = Way(quantization, **changes)  # type: ignore[arg-type]
    found = need(BASES[base], adapter or ADAPTERS[base], load, way, recompute=recompute)
    assert found.total / GIB == pytest.approx(measured, rel=within)


@pytest.mark.parametrize(
    ("quantization", "load", "recompute", "measured"),
    [
        # the estimates that were told then belong to a step of so many tokens, which was not noted itself
        ("fp8", Load(10_460, 10_460), False, 60.8),
        ("none", Load(10_460, 10_460), False, 60.7),
        ("nf4", Load(10_460, 10_460), False, 51.1),
        ("nf4", Load(8192, 8192), True, 10.0),
    ],
)
def test_the_peak_of_this_engine_on_an_h100_is_within_a_tenth(
    quantization: str, load: Load, recompute: bool, measured: float
):
    found = need(LLAMA_8B, ADAPTERS["8B"], load, Way(quantization, fused=True), recompute=recompute)
    assert found.total / GIB == pytest.approx(measured, rel=0.1)


def test_weights_in_4_bits_that_stay_restored_are_counted():
    load = Load(10_496, 10_496)

    def total(quantization: str, *, restored: bool, **changes: int) -> float:
        way = Way(quantization, fused=True, whole_mlp=True, **changes)  # type: ignore[arg-type]
        return need(LLAMA_8B, ADAPTERS["8B"], load, way, recompute=False, restored=restored).total / GIB

    assert total("nf4", restored=True) == pytest.approx(54.8, rel=0.03)  # measured
    for quantization, changes in (("fp8", {}), ("none", {}), ("nf4", {"shards": 2})):  # there is nothing to restore
        assert total(quantization, restored=True, **changes) == total(quantization, restored=False, **changes)


def test_the_inputs_that_wait_on_the_host_are_not_counted():
    load = Load(8192, 8192)

    def kept(way: Way, part: Part = "all") -> int:
        return need(LLAMA_8B, ADAPTERS["8B"], load, way, recompute=True, part=part).kept

    there, away = Way("nf4", fused=True), Way("nf4", fused=True, offload=True)
    assert kept(there) == 32 * 2 * 4096 * 8192
    assert kept(away) == 2 * 2 * 4096 * 8192
    assert kept(away, "half") == kept(there, "half")


@pytest.mark.parametrize(
    ("quantization", "width", "attention", "row", "recompute", "measured"),
    [
        ("none", 2, "eager", 256, False, 2.60),
        ("none", 2, "eager", 256, True, 1.68),
        ("none", 4, "sdpa", 256, False, 3.24),
        ("nf4", 2, "eager", 256, False, 2.62),
    ],
)
def test_the_peak_of_a_process_on_a_cpu_is_near_what_was_measured(
    quantization: str, width: int, attention: str, row: int, recompute: bool, measured: float
):
    """SmolLM2 in micro-batches of 1,024 tokens: the memory of the whole process."""
    way = Way(quantization, cuda=False, fused=True, attention=attention, shares_keys=False, width=width)
    found = need(SMOLLM2, ADAPTERS["135M"], Load(1024, row), way, recompute=recompute)
    assert found.total / GIB == pytest.approx(measured, rel=0.2)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("tokens", [64, 2048, 16_384])
def test_what_takes_less_is_estimated_to_take_less(base: str, tokens: int, fused: bool):
    def total(quantization: str, *, recompute: bool = False, tokens: int = tokens, attention: str = "varlen") -> int:
        way = Way(quantization, fused=fused, attention=attention)
        return need(BASES[base], ADAPTERS[base], Load(tokens, tokens), way, recompute=recompute).total

    def kept(part: Part | None) -> int:
        way, load, recompute = Way("nf4", fused=fused), Load(tokens, tokens), part is not None
        return need(BASES[base], ADAPTERS[base], load, way, recompute=recompute, part=part or "all").kept

    assert total("nf4") < total("none")
    assert total("nf4", recompute=True) < total("nf4")
    assert kept(None) > kept("attention") > kept("half") > kept("all")
    assert total("none", tokens=tokens // 2) < total("none")
    assert total("none") <= total("none", attention="sdpa") < total("none", attention="eager")


def test_weights_that_are_not_quantized_have_the_bytes_of_what_is_computed_in():
    load = Load(100, 100)
    half, full = (need(SMOLLM2, 0, load, Way("none", width=width), recompute=False).weights for width in (2, 4))
    assert (half, full) == (2 * SMOLLM2.parameters, 4 * SMOLLM2.parameters)
    nf4 = need(SMOLLM2, 0, load, Way("nf4"), recompute=False).weights
    head = SMOLLM2.parameters - SMOLLM2.matmuls
    assert nf4 == pytest.approx(0.516 * SMOLLM2.matmuls + 2 * head)


@pytest.mark.parametrize("quantization", ["nf4", "none", "fp8"])
def test_a_process_has_its_part_of_the_layers_two_whole_ones_and_the_rest(quantization: str):
    load = Load(100, 100)

    def weights(shards: int) -> int:
        return need(LLAMA_70B, 0, load, Way(quantization, shards=shards), recompute=False).weights

    rest = 2 * (LLAMA_70B.parameters - LLAMA_70B.matmuls)
    layers = weights(1) - rest
    assert weights(4) == pytest.approx(layers / 4 + 2 * layers / 80 + rest)


def test_the_search_begins_where_the_estimate_may_fit():
    needs = [Need(weights=size, adapter=0, kept=0, passing=0) for size in (100, 60, 30, 10)]
    found = [begin(needs, free) for free in (200, 85, 79, 50, 40, 24, 1)]
    assert found == [0, 0, 1, 1, 2, 2, 3]


def cost(shape: Shape, peak: float) -> Cost:
    return Cost(
        shape.matmuls + shape.hidden * shape.vocabulary,
        attention_flops(600.0**2 * 10, 6000, shape.layers, shape.attention),
        peak,
    )


@pytest.mark.parametrize(
    ("base", "way", "measured"),
    [
        ("8B", Way("nf4"), 4566),
        ("8B", Way("none"), 5400),
        ("8B", Way("nf4", fused=True), 15_287),
        ("8B", Way("none", fused=True), 15_677),
        ("8B", Way("fp8", fused=True), 20_430),
        ("135M", Way("none", fused=True, graphs=True), 120_655),
        ("135M", Way("nf4"), 26_572),
        ("135M", Way("none"), 32_067),
    ],
)
def test_the_speed_is_near_what_was_measured_on_an_h200(base: str, way: Way, measured: float):
    tokens = 8192 if way.fused else 6708
    found = tokens_per_second(cost(BASES[base], 989e12), BASES[base], way, tokens, recompute=False)
    assert found == pytest.approx(measured, rel=0.2)


def test_a_run_takes_as_long_as_its_tokens_and_validations_at_that_speed():
    price, way = cost(LLAMA_8B, 989e12), Way("none", fused=True)
    speed = tokens_per_second(price, LLAMA_8B, way, 8000, recompute=False)
    whole = seconds(price, LLAMA_8B, way, Amount(80_000, 0, 10), recompute=False)
    assert whole == pytest.approx(80_000 / speed)
    assert seconds(price, LLAMA_8B, way, Amount(80_000, 160_000, 10), recompute=False) == pytest.approx(2 * whole)
    assert seconds(price, LLAMA_8B, way, Amount(80_000, 0, 10), recompute=True) > whole
    assert seconds(price, LLAMA_8B, way, Amount(0, 0, 0), recompute=True) == 0


def test_a_small_base_is_bound_by_launches_which_graphs_save():
    price = cost(SMOLLM2, 989e12)

    def speed(*, graphs: bool, tokens: int = 8192) -> float:
        way = Way("none", fused=True, graphs=graphs)
        return tokens_per_second(price, SMOLLM2, way, tokens, recompute=False)

    assert speed(graphs=True) > 2 * speed(graphs=False)
    assert speed(graphs=False, tokens=16_384) == pytest.approx(2 * speed(graphs=False))

"""How a run computes, over GPUs, bases and datasets of every size; each choice has its reason."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.domain.fits import LEAN_ON_GPU, ON_CPU, ON_GPU, Fit
from services.trainer.domain.memory_plan import GIB
from services.trainer.domain.plan import Switches
from services.trainer.domain.recipe import Base, Data, Device, Planner, Recipe, check_fp8
from shared.errors import InputError
from tests.unit.trainer.domain.test_memory_plan import ADAPTERS, BASES, cost

PEAKS = {"4090": 165e12, "A100-40": 312e12, "A100-80": 312e12, "H100": 989e12, "H200": 989e12}
GPUS = {
    "4090": Device(True, "NVIDIA GeForce RTX 4090", 24 * GIB, 23 * GIB, (8, 9)),
    "A100-40": Device(True, "NVIDIA A100-SXM4-40GB", 40 * GIB, 39 * GIB, (8, 0)),
    "A100-80": Device(True, "NVIDIA A100-SXM4-80GB", 80 * GIB, 79 * GIB, (8, 0)),
    "H100": Device(True, "NVIDIA H100 80GB HBM3", 80 * GIB, 79 * GIB, (9, 0)),
    "H200": Device(True, "NVIDIA H200", 141 * GIB, 139 * GIB, (9, 0)),
}
CPU = Device(False, "CPU", 64 * GIB, 32 * GIB)
DATA = Data(tokens=20_000_000, longest=2048, most=9000, steps=3000)
WHOLE, PLAIN = Switches(), Switches(fused_lora=False, cuda_graphs=False)


def planner(gpu: str, base: str, data: Data = DATA, switches: Switches = WHOLE) -> Planner:
    device = GPUS.get(gpu, CPU)
    price = cost(BASES[base], PEAKS.get(gpu, 7e10))
    return Planner(device, Base(BASES[base], cost=price), data, ADAPTERS[base], switches=switches)


def recipe(gpu: str, base: str, asked: str = "auto", data: Data = DATA, switches: Switches = WHOLE) -> Recipe:
    return planner(gpu, base, data, switches).plan(asked, ON_GPU if gpu in GPUS else ON_CPU)


@pytest.mark.parametrize("switches", [PLAIN, WHOLE])
@pytest.mark.parametrize(
    ("base", "served"),
    [
        ("135M", {"4090", "A100-40", "A100-80", "H100", "H200"}),
        ("1B", {"4090", "A100-40", "A100-80", "H100", "H200"}),
        ("8B", {"4090", "A100-40", "A100-80", "H100", "H200"}),
        ("70B", set()),
    ],
)
@pytest.mark.parametrize("gpu", [*GPUS, "CPU"])
def test_bf16_is_taken_where_it_fits_because_it_is_what_is_served(
    gpu: str, base: str, served: set[str], switches: Switches
):
    found = recipe(gpu, base, switches=switches)
    assert found.quantization.value == ("none" if gpu in served else "nf4")
    if gpu in GPUS:
        assert re.search(r"bf16, which is what is served, .* [\d.]+ of the [\d.]+ GiB", found.quantization.reason)
    else:
        assert "on a CPU" in found.quantization.reason


def test_what_others_hold_of_the_gpu_decides_too():
    beside_vllm = replace(GPUS["H100"], free=12 * GIB)
    found = replace(planner("H100", "8B"), device=beside_vllm).plan("auto", ON_GPU)
    assert found.quantization.value == "nf4"
    assert "of the 12.0 GiB that are free" in found.quantization.reason


@pytest.mark.parametrize("asked", ["nf4", "none"])
@pytest.mark.parametrize("gpu", [*GPUS, "CPU"])
@pytest.mark.parametrize("base", BASES)
def test_what_was_asked_for_is_kept_wherever_it_is(gpu: str, base: str, asked: str):
    found = recipe(gpu, base, asked)
    assert (found.quantization.value, found.quantization.reason) == (asked, "as set")
    assert not found.automatic


@pytest.mark.parametrize(
    ("gpu", "why"),
    [
        ("CPU", "training runs on a CPU here"),
        ("A100-80", "NVIDIA A100-SXM4-80GB has compute capability 8.0, and fp8 needs 8.9"),
        ("H100", None),
        ("4090", None),
    ],
)
def test_fp8_is_refused_where_it_cannot_be_computed(gpu: str, why: str | None):
    if why is None:
        assert recipe(gpu, "8B", "fp8").quantization.value == "fp8"
        return
    with pytest.raises(InputError, match=f"{re.escape(why)}.*'auto', 'none'.*'nf4'") as caught:
        recipe(gpu, "8B", "fp8")
    assert (caught.value.code, caught.value.param) == ("unsupported_quantization", "lora.quantization")
    with pytest.raises(InputError):
        check_fp8(GPUS.get(gpu, CPU))


@pytest.mark.parametrize(
    ("gpu", "free", "kept", "value", "why"),
    [
        ("H100", 79, "nf4", "nf4", "checkpoint"),  # it was begun on a smaller GPU
        ("H100", 79, "none", "none", "checkpoint"),
        ("H100", 10, "none", "nf4", "would take"),  # and now there is less memory: it begins anew
        ("CPU", 32, "nf4", "nf4", "checkpoint"),
        ("CPU", 32, "none", "nf4", "on a CPU"),
        ("H100", 79, None, "none", "fits"),
    ],
)
def test_a_continued_run_keeps_what_auto_was_if_it_can(gpu: str, free: int, kept: str | None, value: str, why: str):
    made = planner(gpu, "8B")
    made = replace(made, device=replace(made.device, free=free * GIB))
    found = made.plan("auto", ON_GPU, kept=kept)
    assert found.quantization.value == value
    assert why in found.quantization.reason


@pytest.mark.parametrize(
    ("gpu", "base", "begins"),
    [
        ("H200", "8B", ON_GPU[0]),
        ("H100", "8B", ON_GPU[0]),
        ("A100-40", "8B", ON_GPU[0]),
        ("4090", "8B", ON_GPU[4]),
        ("4090", "135M", ON_GPU[0]),
        ("A100-40", "1B", ON_GPU[0]),
        ("H100", "70B", ON_GPU[4]),
        ("4090", "70B", ON_GPU[9]),
    ],
)
def test_the_search_for_what_fits_begins_near_what_does(gpu: str, base: str, begins: Fit):
    found = recipe(gpu, base, switches=WHOLE)
    assert found.begin.value == begins
    assert re.match(r"estimated [\d.]+ of the [\d.]+ GiB that are free", found.begin.reason)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("gpu", GPUS)
def test_a_fit_that_is_expected_to_fit_is_never_passed_over(gpu: str, base: str):
    made = planner(gpu, base)
    found = made.plan("auto", ON_GPU)
    passed = ON_GPU[: ON_GPU.index(found.begin.value)]
    assert all(made.estimate(found, fit).memory_bytes > made.device.free for fit in passed)


@pytest.mark.parametrize("gpu", [*GPUS, "CPU"])
def test_nothing_is_recorded_for_a_short_job(gpu: str):
    assert not recipe(gpu, "135M", data=replace(DATA, tokens=20_000, steps=3)).cuda_graphs.value
    endless = replace(DATA, tokens=10**10, steps=10**6)
    assert recipe(gpu, "135M", data=endless).cuda_graphs.value == (gpu in GPUS)


def test_graphs_are_for_small_bases_whose_launches_take_the_time():
    assert recipe("H100", "135M").cuda_graphs.value
    large = recipe("H100", "8B").cuda_graphs
    assert (large.value, large.reason) == (False, "the arithmetic takes longer than launching its kernels")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"experts": True}, "the base has experts"),
        ({"attention": "eager", "lacks": ("the base has attention sinks",)}, "the base has attention sinks"),
        ({"attention": "sdpa"}, "kernel for packed rows"),
        ({"cost": None}, "is not known"),
    ],
)
def test_a_base_that_a_fast_path_does_not_suit_falls_back_and_says_so(changes: dict[str, object], why: str):
    made = planner("H100", "8B")
    made = replace(made, base=replace(made.base, **changes))  # type: ignore[arg-type]
    found = made.plan("auto", ON_GPU)
    assert not found.cuda_graphs.value
    assert why in found.cuda_graphs.reason
    assert made.estimate(found, ON_GPU[0]).memory_bytes > 0
    assert (made.estimate(found, ON_GPU[0]).seconds is None) == ("cost" in changes)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"repeats": False}, "preference pairs differ"),
        ({"switches": Switches(cuda_graphs=False)}, "switched off"),
    ],
)
def test_what_cannot_be_recorded_is_not(changes: dict[str, object], why: str):
    found = replace(planner("H100", "135M"), **changes).plan("auto", ON_GPU)  # type: ignore[arg-type]
    assert not found.cuda_graphs.value and why in found.cuda_graphs.reason


def test_a_piece_that_is_switched_off_is_not_used_and_one_that_is_asked_for_is():
    assert not recipe("H100", "8B", switches=PLAIN).fused_lora.value
    found = recipe("H100", "8B", switches=Switches(cuda_graphs=True)).cuda_graphs
    assert (found.value, found.reason) == (True, "as set")


@pytest.mark.parametrize(
    ("gpu", "base", "asked", "processes", "divided", "why"),
    [
        ("4090", "8B", "auto", 1, False, "there is one process"),
        ("4090", "8B", "auto", 2, False, "one GPU holds the base: at least"),
        ("4090", "70B", "auto", 4, True, r"one GPU does not hold the base: .* at least [\d.]+ of the 23.0 GiB"),
        ("H100", "70B", "auto", 2, False, "one GPU holds the base"),
        ("H100", "70B", "none", 4, True, "one GPU does not hold the base"),
        ("CPU", "70B", "auto", 2, False, "on a CPU all processes have the same memory"),
    ],
)
def test_a_base_is_divided_where_one_gpu_does_not_hold_it(
    gpu: str, base: str, asked: str, processes: int, divided: bool, why: str
):
    made = replace(planner(gpu, base), processes=processes)
    found = made.plan(asked, ON_GPU if gpu in GPUS else ON_CPU)
    assert found.sharded.value is divided
    assert re.search(why, found.sharded.reason)
    if divided:
        assert not found.cuda_graphs.value
        assert made.estimate(found, ON_GPU[-1]).memory_bytes < made.device.free
        alone = replace(made, processes=1).plan(asked, ON_GPU)
        assert made.estimate(alone, ON_GPU[-1]).memory_bytes > made.device.free


def test_a_base_that_all_gpus_together_do_not_hold_is_refused_with_what_to_change():
    with pytest.raises(
        InputError, match=r"on 2 GPUs: divided .* [\d.]+ GiB of each, of which 39.0 are free.*TRAINER__GPUS.*or.*nf4"
    ) as caught:
        replace(planner("A100-40", "70B"), processes=2).plan("none", ON_GPU)
    assert (caught.value.code, caught.value.param) == ("out_of_memory", "model")


def test_the_inputs_of_recomputed_layers_wait_on_the_host_where_it_has_the_memory():
    def made(host_free: int | None, **changes: Any) -> tuple[bool, str, int]:
        usual = planner("4090", "8B")
        one = replace(usual, device=replace(usual.device, host_free=host_free), **changes)
        found = one.plan("nf4", LEAN_ON_GPU)
        return found.offload.value, found.offload.reason, one.estimate(found, LEAN_ON_GPU[0]).memory_bytes

    unknown, plenty, little = made(None), made(64 * GIB), made(GIB)
    assert [each[0] for each in (unknown, plenty, little)] == [True, True, False]
    assert "of the 64.0 GiB of the host's memory that are free, wait there" in plenty[1]
    assert "of the 1.0 GiB of the host's memory that are free, stay on the GPU" in little[1]
    assert unknown[2] == plenty[2] < little[2] - GIB // 2
    assert not made(4 * GIB, processes=4)[0]  # each process has its own
    assert made(64 * GIB, switches=Switches(offload=False))[:2] == (False, "switched off")
    assert made(0, switches=Switches(offload=True))[:2] == (True, "as set")
    on_cpu = replace(planner("4090", "8B"), device=CPU).plan("nf4", LEAN_ON_GPU).offload
    assert not on_cpu.value


def test_the_document_has_a_reason_for_each_value():
    document = recipe("H100", "8B").document()
    assert set(document) == {
        "fused_lora", "cuda_graphs", "sharded", "offload", "micro_tokens", "recompute",
    }  # fmt: skip
    assert all(isinstance(entry, dict) and entry["reason"] for entry in document.values())


@given(
    free=st.integers(0, 200 * GIB),
    base=st.sampled_from(sorted(BASES)),
    asked=st.sampled_from(["auto", "nf4", "none", "fp8"]),
    longest=st.integers(1, 131_072),
    rows=st.integers(1, 256),
    steps=st.integers(1, 10**6),
    kept=st.sampled_from([None, "nf4", "none", "fp8", "int3"]),
)
def test_there_is_a_recipe_for_everything(
    free: int, base: str, asked: str, longest: int, rows: int, steps: int, kept: str | None
):
    data = Data(tokens=longest * rows * steps, longest=longest, most=longest * rows, steps=steps)
    made = planner("H100", base, data)
    found = replace(made, device=replace(made.device, free=free)).plan(asked, ON_GPU, kept=kept)
    assert found.quantization.value in ("nf4", "none", "fp8")
    assert found.begin.value in ON_GPU
    estimate = made.estimate(found, found.begin.value)
    assert estimate.memory_bytes > 0 and estimate.seconds is not None and estimate.seconds > 0

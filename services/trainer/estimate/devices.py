"""The devices that a run can be planned for: GPUs by name, and what this machine has."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

from services.trainer.domain.memory_plan import CPU_FLOPS, GIB, UNKNOWN_PEAK
from services.trainer.domain.recipe import Device
from services.trainer.domain.utilization import peak_flops
from shared.errors import InputError

CONTEXT = 0.6
"""GiB that CUDA and the driver have of a GPU before anything is loaded."""
BFLOAT16_CAPABILITY = (8, 0)
GPUS = {
    # the name for people: what its driver calls it, GiB that the driver shows, compute capability
    "h200": ("NVIDIA H200", 139.8, (9, 0)),
    "h100": ("NVIDIA H100 80GB HBM3", 79.2, (9, 0)),
    "a100": ("NVIDIA A100-SXM4-80GB", 79.2, (8, 0)),
    "a100-40gb": ("NVIDIA A100-SXM4-40GB", 39.4, (8, 0)),
    "l40s": ("NVIDIA L40S", 44.4, (8, 9)),
    "l4": ("NVIDIA L4", 22.0, (8, 9)),
    "rtx4090": ("NVIDIA GeForce RTX 4090", 23.5, (8, 9)),
    "rtx3090": ("NVIDIA GeForce RTX 3090", 23.6, (8, 6)),
    "t4": ("Tesla T4", 14.6, (7, 5)),
}


def named(name: str) -> Device:
    """The device that people call `name`.

    Raises:
        InputError: `unknown_gpu`: it is not in the list; `unsupported_gpu`: nothing can be trained on it.
    """
    if name == "cpu":
        return cpu()
    if name not in GPUS:
        known = ", ".join(["cpu", *sorted(GPUS)])
        raise InputError("unknown_gpu", f"{name!r} is not known; there are {known}", "gpu")
    found = gpu(name)
    if found.capability < BFLOAT16_CAPABILITY:
        raise InputError(
            "unsupported_gpu",
            f"the GPU ({found.name}) cannot compute in bfloat16, which training needs: use one of NVIDIA's Ampere "
            "generation (compute capability 8.0) or newer, such as l4 or rtx3090",
            "gpu",
        )
    return found


def gpu(name: str) -> Device:
    """A GPU of the list, whether or not it can be trained on."""
    driver, total, capability = GPUS[name]
    return Device(True, driver, int(total * GIB), int((total - CONTEXT) * GIB), capability)


def cpu() -> Device:
    """This machine without its GPUs."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device(cuda=False, name="CPU", total=total, free=total)


def here(asked: str | None, query: Callable[[], str] | None = None) -> Device:
    """What a training on this machine would get. `asked`: `trainer.gpu` of the settings, where `cpu` means none; else
    the first GPU that it names. `query`: answers with the GPUs, one a line; by default NVIDIA's own tool."""
    if asked == "cpu":
        return cpu()
    lines = (query or _nvidia_smi)().splitlines()
    first = (asked or os.environ.get("CUDA_VISIBLE_DEVICES") or "0").split(",")[0]
    at = int(first) if first.isdigit() and int(first) < len(lines) else 0
    try:
        name, total, free, capability = (part.strip() for part in lines[at].split(","))
        major, minor = capability.split(".")
        return Device(True, name, int(total) * 2**20, int(free) * 2**20, (int(major), int(minor)))
    except (IndexError, ValueError):
        return cpu()


def peak_of(device: Device) -> float:
    """FLOP/s, where they are not known those that are assumed."""
    return (peak_flops(device.name) or UNKNOWN_PEAK) if device.cuda else CPU_FLOPS


def short_name(device: Device) -> str:
    """What people and price files call it."""
    return next((name for name, (driver, *_) in GPUS.items() if driver == device.name), device.name.lower())


def _nvidia_smi() -> str:
    columns = "name,memory.total,memory.free,compute_cap"
    try:
        found = subprocess.run(
            ["nvidia-smi", f"--query-gpu={columns}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout

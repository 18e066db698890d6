"""On vLLM's CPU build, a batch that holds requests for tuned models and for the base leaves the base as it is."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from services.inference.vllm.command import CPU_WORKER, command_line
from shared.settings import Settings

pytestmark = pytest.mark.torch

PROGRAM = """
import importlib, json, sys
import torch
if len(sys.argv) > 1:
    module, _, name = sys.argv[1].rpartition(".")
    getattr(importlib.import_module(module), name)
from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu

def through(shrink, expand, expand_slice, slots):
    # three tokens through adapters of rank 1 over two values; there are two slots, and slot n multiplies by n + 1
    x, y = torch.ones(3, 2), torch.zeros(3, 2)
    a, b = torch.ones(2, 1, 1, 2) / 2, torch.stack([torch.full((1, 2, 1), n + 1.0) for n in range(2)])
    rank = torch.full((3, 1), 7.0)
    shrink(x, a, rank, slots)
    expand(rank, b, y, slots)
    expand_slice(rank, b, y, slots)
    return y[:, 0].tolist()

slots = torch.tensor([0, -1, 1])
ones = torch.ones(3, dtype=torch.long)
starts = torch.arange(3)
o, p = lora_ops, punica_cpu
print(json.dumps([
    through(
        lambda x, a, y, s: p.bgmv_shrink(x, a, y, s, 1.0),
        lambda x, b, y, s: p.bgmv_expand(x, b, y, s, True),
        lambda x, b, y, s: p.bgmv_expand_slice(x, b, y, s, 0, 2, True),
        slots,
    ),
    through(
        lambda x, a, y, s: p.sgmv_shrink(x, a, y, starts, ones, s, 3, 1, 3, 1.0),
        lambda x, b, y, s: p.sgmv_expand(x, b, y, starts, ones, s, 3, 1, 3, True),
        lambda x, b, y, s: p.sgmv_expand_slice(x, b, y, starts, ones, s, 3, 1, 3, 0, 2, True),
        slots,
    ),
]))
"""
MENDED = [2.0, 0.0, 4.0]
"""The base's token in the middle gets nothing; the others get what their slot adds, twice."""


def said(*arguments: str) -> list[list[float]]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: list[list[float]] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_the_token_of_the_base_gets_no_adapter_in_decoding_and_in_prefill() -> None:
    assert said(CPU_WORKER) == [MENDED, MENDED]


def test_only_the_server_on_a_cpu_is_mended_and_a_user_may_name_another_class() -> None:
    plain = Settings.model_validate({"vllm": {}})
    named = Settings.model_validate({"vllm": {"extra_args": ("--worker-extension-cls", "mine.Worker")}})
    assert CPU_WORKER in command_line(plain, 8000, cpu=True)
    assert CPU_WORKER not in command_line(plain, 8000, cpu=False)
    assert CPU_WORKER not in command_line(named, 8000, cpu=True)

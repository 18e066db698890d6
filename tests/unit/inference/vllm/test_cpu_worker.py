"""On vLLM's CPU build, a batch that holds requests for tuned models and for the base leaves the base as it is, and
adapters cost what their arithmetic costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.inference.vllm.command import CPU_WORKER, command_line
from shared.settings import Settings

pytestmark = pytest.mark.torch

ROOT = Path(__file__).resolve().parents[4]

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


AGAINST_VLLM = """
import json
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from vllm.lora.ops.torch_ops import lora_ops
theirs = {name: getattr(lora_ops, name) for name in ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")}
from services.inference.vllm import cpu_worker

torch.manual_seed(0)
worst, cases = 0.0, 0
for tokens in (1, 2, 7, 40):
    for slots in (torch.randint(0, 3, (tokens,)), torch.full((tokens,), 2)):
        for dtype in (torch.float32, torch.bfloat16):
            x, a = torch.randn(tokens, 24, dtype=dtype), torch.randn(3, 1, 4, 24, dtype=dtype)
            rank, b = torch.randn(tokens, 4), torch.randn(3, 1, 16, 4, dtype=dtype)
            for name, inputs, weights, output, more in (
                ("bgmv_shrink", x, a, torch.randn(tokens, 8), (0.5,)),
                ("bgmv_expand", rank, b, torch.randn(tokens, 12, dtype=dtype), (True,)),
                ("bgmv_expand", rank, b, torch.randn(tokens, 20, dtype=dtype), (False,)),
                ("bgmv_expand_slice", rank, b, torch.randn(tokens, 30, dtype=dtype), (5, 16, True)),
                ("bgmv_expand_slice", rank, b[:, 0], torch.randn(tokens, 30, dtype=dtype), (5, 16, False)),
            ):
                wanted, got = output.clone(), output.clone()
                theirs[name](inputs, weights, wanted, slots, *more)
                getattr(lora_ops, name)(inputs, weights, got, slots, *more)
                worst = max(worst, ((wanted - got).abs().max() / wanted.abs().max()).item())
                cases += 1

class Largest(TorchDispatchMode):
    # the bytes of the largest tensor that an operation makes

    most = 0

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        made = operation(*arguments, **(named or {}))
        if isinstance(made, torch.Tensor):
            self.most = max(self.most, made.numel() * made.element_size())
        return made

# a prefill of 512 tokens through one layer, with rank 64
x, rank, out = torch.randn(512, 576), torch.zeros(512, 64), torch.zeros(512, 1536)
a, b = torch.randn(4, 1, 64, 576), torch.randn(4, 1, 1536, 64)
with Largest() as largest:
    for slots in (torch.full((512,), 1), torch.randint(-1, 4, (512,))):
        lora_ops.bgmv_shrink(x, a, rank, slots, 1.0)
        lora_ops.bgmv_expand(rank, b, out, slots, True)
print(json.dumps([worst, cases, largest.most]))
"""


def run(program: str, *arguments: str) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_the_token_of_the_base_gets_no_adapter_in_decoding_and_in_prefill() -> None:
    assert run(PROGRAM, CPU_WORKER) == [MENDED, MENDED]


def test_the_mended_operations_compute_what_vllms_do_without_a_copy_of_the_matrix_per_token() -> None:
    worst, cases, largest = run(AGAINST_VLLM)
    assert cases == 80
    assert worst < 1e-2  # one step of bfloat16: the sums are the same, in another order
    assert largest <= 512 * 1536 * 4  # the output; 512 copies of the matrix would be 200 MB


def test_only_the_server_on_a_cpu_is_mended_and_a_user_may_name_another_class() -> None:
    plain = Settings.model_validate({"vllm": {}})
    named = Settings.model_validate({"vllm": {"extra_args": ("--worker-extension-cls", "mine.Worker")}})
    assert CPU_WORKER in command_line(plain, 8000, cpu=True)
    assert CPU_WORKER not in command_line(plain, 8000, cpu=False)
    assert CPU_WORKER not in command_line(named, 8000, cpu=True)

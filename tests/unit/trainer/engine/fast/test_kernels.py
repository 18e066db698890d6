"""The Triton kernels against torch. Without a GPU they run in Triton's interpreter, in a process of its own, because a
process has either that or the compiler."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.torch

PROGRAM = """
import json, sys
import torch
import torch.nn.functional as F
from services.trainer.engine.fast import float8, kernels
from services.trainer.engine.fast.adapters import gated, sums

kernels.BLOCK = 64
device = sys.argv[1]
torch.manual_seed(0)
for rows, vocabulary, largest in ((9, 150, 3.0), (4, 64, 30.0), (1, 1, 1.0), (0, 10, 1.0)):
    scores = (torch.randn(rows, vocabulary) * largest).to(device)
    targets = torch.randint(0, vocabulary, (rows,), device=device)
    targets[2:3] = -100
    plain = scores.clone().requires_grad_()
    losses = F.cross_entropy(plain, targets, reduction="none", ignore_index=-100)
    losses.sum().backward()
    hits = scores.argmax(-1) == targets
    untouched = scores.clone()
    loss, correct = kernels.losses_(untouched, targets, slopes=False)
    assert torch.equal(untouched, scores)
    again, _ = kernels.losses_(scores, targets, slopes=True)
    assert torch.equal(loss, again) and torch.equal(correct, hits)
    assert torch.allclose(loss, losses.detach(), atol=1e-5)
    assert torch.allclose(scores, plain.grad, atol=1e-6)
values = (torch.randn(5, 300) * torch.tensor([1e-4, 1.0, 0.0, 50.0, 1e3])[:, None]).to(device)
_, of_rows = float8.quantize_rows(values)
for kernels.ROW in (16384, 64):  # a row at once, and in pieces
    exact, scales = kernels.quantize_rows(values, torch.float32, 448.0)
    assert torch.allclose(scales, of_rows)
    assert torch.allclose(exact, values / of_rows, rtol=1e-6)
for tokens, width, ranks in ((37, 150, (8, 16, 4)), (64, 256, (16, 16, 16)), (3, 40, (32, 5, 17)), (0, 64, (4, 4, 4))):
    draw = lambda *shape: torch.randn(*shape, device=device)
    slope, gate, up = (draw(tokens, width) for _ in range(3))
    low, back = draw(tokens, ranks[0] + ranks[1]), draw(tokens, ranks[2])
    lows, ups = low.split(ranks[:2], 1), (draw(width, ranks[0]), draw(width, ranks[1]))
    down = draw(ranks[2], width)
    near = dict(rtol=1e-4, atol=1e-4) if device == "cpu" else dict(rtol=5e-2, atol=5e-2)  # a GPU has tf32
    for others in ((), (gate,), (gate, up)):
        for right in (down, down.t().contiguous().t()):
            expected = sums.add_plain_(slope.clone(), back, right, others)
            assert torch.allclose(sums.add_in_a_kernel_(slope.clone(), back, right, others), expected, **near)
    hidden = gated.gated_plain(gate, up, lows, ups)
    assert torch.allclose(gated.gated(gate, up, lows, ups), hidden, **near)
    found, plain = ([each.clone() for each in (slope, gate, up)] for _ in range(2))
    gated.gated_back_(*found, lows, ups, back, down)
    gated.gated_back_plain_(*plain, lows, ups, back, down)
    assert torch.allclose(found[0], hidden, **near)
    for one, other in zip(found, plain):
        assert torch.allclose(one, other, **near)
    if tokens and gated.takes_adapters(lows, back):
        for gated.STEPS in (1, 2, 32):
            kept, of_gate, of_up = found = [each.clone() for each in (slope, gate, up)]
            of_adapters = gated.gated_back_with_adapters_(*found, lows, ups, back, down)
            assert torch.equal(kept, slope)
            assert torch.allclose(of_gate, plain[1], **near) and torch.allclose(of_up, plain[2], **near)
            expected = (plain[1].t() @ lows[0], plain[2].t() @ lows[1], back.t() @ hidden)
            for one, other in zip(of_adapters, expected):
                assert torch.allclose(one, other, rtol=10 * near["rtol"], atol=10 * near["atol"])
    else:
        assert not tokens or max(ranks) > 16
if device == "cuda":  # the interpreter rounds to 8 bits in its own way
    small, _ = kernels.quantize_rows(values.bfloat16(), torch.float8_e4m3fn, 448.0)
    expected, _ = float8.quantize_rows(values.bfloat16())
    assert float((small.float() != expected.float()).float().mean()) < 0.01
print(json.dumps("right"))
"""


def test_they_compute_what_torch_does():
    import torch  # noqa: PLC0415

    gpu = torch.cuda.is_available()
    environment = {**os.environ, **({} if gpu else {"TRITON_INTERPRET": "1"})}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "cuda" if gpu else "cpu"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == "right"

"""On a GPU: torch's kernel for packed rows against sdpa with a matrix, forward and backward, in bfloat16.

`python -m benchmarks.varlen` prints the relative errors, and fails if one is above 1e-2. It needs no base.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
import torch.nn.functional as F

from services.trainer.engine.fast import varlen

ALLOWED = 1e-2
CASES = {
    "documents, GQA": (32, 8, 128, (700, 1, 130, 2048, 64, 33), None),
    "one document": (8, 8, 64, (1024,), None),
    "sliding window, GQA": (16, 4, 64, (700, 130, 513), 256),
}


def error(found: Any, wanted: Any) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def masked(q: Any, k: Any, v: Any, document: Any, scale: float, window: int | None) -> Any:
    place = torch.arange(len(q), device=q.device)
    behind = place[:, None] - place
    seen = (document[:, None] == document) & (behind >= 0)
    if window is not None:
        seen &= behind < window
    one, two, three = (e.repeat_interleave(q.shape[1] // e.shape[1], 1).transpose(0, 1)[None] for e in (q, k, v))
    return F.scaled_dot_product_attention(one, two, three, attn_mask=seen, scale=scale)[0].transpose(0, 1)


def main() -> int:
    if not torch.cuda.is_available() or not varlen.available():
        print("this needs a GPU, and a torch with torch.nn.attention.varlen")
        return 2
    worst = 0.0
    for name, (heads, fewer, head_dim, lengths, window) in CASES.items():
        torch.manual_seed(0)
        padded = -(-sum(lengths) // 128) * 128
        ends = torch.tensor([0, *lengths, padded - sum(lengths), *[0] * 57]).cumsum(0)
        begins = ends.to("cuda", torch.int32)
        document = torch.bucketize(torch.arange(padded, device="cuda"), begins[1:].long(), right=True)
        scale, longest = head_dim**-0.5, max(*lengths, padded - sum(lengths))
        q, k, v = inputs = [
            torch.randn(padded, h, head_dim, device="cuda", dtype=torch.bfloat16, requires_grad=True)
            for h in (heads, fewer, fewer)
        ]
        found = varlen.kernel(q, k, v, begins, longest, scale=scale, window=window)
        slope = torch.randn_like(found)
        precise = [each.detach().float().requires_grad_() for each in inputs]
        wanted = masked(precise[0], precise[1], precise[2], document, scale, window)
        gradients = torch.autograd.grad(found, inputs, slope)
        others = torch.autograd.grad(wanted, precise, slope.float())
        errors = [error(found, wanted), *(error(a, b) for a, b in zip(gradients, others, strict=True))]
        worst = max(worst, *errors)
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(20):
            varlen.kernel(q, k, v, begins, longest, scale=scale, window=window)
        torch.cuda.synchronize()
        took = (time.perf_counter() - began) / 20
        print(f"{name}: errors {', '.join(f'{each:.1e}' for each in errors)} (out, q, k, v); {1e6 * took:.0f} us")
    print("agrees" if worst < ALLOWED else f"an error is above {ALLOWED}")
    return 0 if worst < ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())

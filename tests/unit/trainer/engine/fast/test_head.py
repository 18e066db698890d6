"""The losses of a frozen head, in chunks and with their gradient in one pass, are those of plain logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from services.trainer.engine.fast.head import TokenLosses, plain_losses, token_losses

pytestmark = pytest.mark.torch

KEPT, WIDTH, WORDS = 23, 16, 50


def made(bias: bool) -> tuple[Any, Any, Any]:
    torch.manual_seed(0)
    head = torch.nn.Linear(WIDTH, WORDS, bias=bias, dtype=torch.float64).requires_grad_(False)
    hidden = (3 * torch.randn(KEPT, WIDTH, dtype=torch.float64)).requires_grad_()
    return hidden, head, torch.randint(WORDS, (KEPT,))


def of_sequences(found: TokenLosses) -> Any:
    """A loss as that of DPO: not linear in the sums over sequences."""
    owners = torch.arange(KEPT) % 4
    sums = torch.zeros(4, dtype=torch.float64).index_add(0, owners, found.loss)
    return torch.nn.functional.softplus(sums[0] - sums[1]) + 0.3 * sums[2] ** 2


@pytest.mark.parametrize("loss", [lambda found: found.loss.sum(), of_sequences], ids=["sum", "sequences"])
@pytest.mark.parametrize("chunk", [1, 5, 4096])
@pytest.mark.parametrize("bias", [False, True])
def test_losses_and_gradients_are_those_of_plain_logits(loss: Any, chunk: int, bias: bool):
    hidden, head, targets = made(bias)
    ours, plain = token_losses(hidden, head, targets, chunk), plain_losses(head(hidden), targets)
    torch.testing.assert_close(ours.loss, plain.loss, rtol=1e-10, atol=1e-10)
    assert torch.equal(ours.correct, plain.correct)
    (got,) = torch.autograd.grad(loss(ours), hidden)
    (wanted,) = torch.autograd.grad(loss(plain), hidden)
    assert float((got - wanted).norm() / wanted.norm()) < 1e-10


def test_very_large_logits_overflow_nowhere():
    hidden, head, targets = made(False)
    found = token_losses(hidden * 1e4, head, targets)
    torch.testing.assert_close(found.loss, plain_losses(head(hidden * 1e4), targets).loss)


def test_without_a_gradient_none_is_computed():
    hidden, head, targets = made(False)
    with torch.no_grad():
        assert not token_losses(hidden, head, targets).loss.requires_grad
    assert not token_losses(hidden, head, targets).correct.requires_grad

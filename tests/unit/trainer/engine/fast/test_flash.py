"""FlashAttention 4 takes the place of torch's kernel only where it is installed and computes the same. It does not run
on CPUs, so a function of its signature stands for it here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from services.trainer.domain.auto import Choice
from services.trainer.engine.fast import dress, flash, varlen
from tests.unit.trainer.engine.fast.models import small_model

pytestmark = pytest.mark.torch

CHOSEN = dress.Pieces(flash_attention=Choice(True, "as set"))


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    flash.problem.cache_clear()
    yield
    flash.problem.cache_clear()


def standing_for(found: Callable[[Any], Any], ran: list[int]) -> Callable[..., Any]:
    """A `flash_attn_varlen_func` whose result is that of the reference, as `found` changes it."""

    def attention(q: Any, k: Any, v: Any, *, cu_seqlens_q: Any, max_seqlen_q: int, softmax_scale: float, **more: Any):
        assert more["causal"] and torch.equal(more["cu_seqlens_k"], cu_seqlens_q)
        ran.append(1)
        return found(varlen.reference(q, k, v, cu_seqlens_q, max_seqlen_q, scale=softmax_scale, window=None)), None

    return attention


def packed_model() -> tuple[Any, Callable[[], Any]]:
    """A model that reads packed rows with the kernel of `varlen`, and its hidden states of two documents."""
    model = small_model()
    model.get_base_model().set_attn_implementation(varlen.NAME)
    begins = torch.tensor([0, 10, 24], dtype=torch.int32)
    more = {"cu_seq_lens_q": begins, "cu_seq_lens_k": begins, "max_length_q": 14, "max_length_k": 14}
    places = torch.cat([torch.arange(10), torch.arange(14)])[None]

    def hidden() -> Any:
        with torch.no_grad():
            tokens = torch.arange(24)[None]
            return model(input_ids=tokens, position_ids=places, output_hidden_states=True, **more).hidden_states[-1]

    return model, hidden


def given(pieces: dress.Pieces) -> tuple[Any, dress.Pieces, Callable[[], Any]]:
    """What `dress` is given of a new model."""
    model, hidden = packed_model()
    return model, pieces, hidden


def plain_kernel(query: Any, key: Any, value: Any, begins: Any, longest: int, **more: Any) -> Any:
    return varlen.reference(query, key, value, begins, longest, **more)


def dressed(monkeypatch: pytest.MonkeyPatch, found: Callable[[Any], Any], ran: list[int]) -> tuple[Any, bool, str, Any]:
    """The model's hidden states before, whether it has the kernel and why, and the states after."""
    monkeypatch.setattr(varlen, "kernel", plain_kernel)
    monkeypatch.setattr(flash, "find_spec", lambda _name: True)
    monkeypatch.setattr(flash, "_function", lambda: standing_for(found, ran))
    model, hidden = packed_model()
    before = hidden()
    put_in, why = dress.dress(model, CHOSEN, hidden).flash_attention
    ran.clear()
    return before, put_in, why, hidden()


def test_it_computes_the_attention_of_every_layer(monkeypatch: pytest.MonkeyPatch):
    ran: list[int] = []
    before, put_in, why, after = dressed(monkeypatch, lambda result: result, ran)
    assert put_in and "differ by 0.00%" in why
    assert len(ran) == 2
    assert torch.allclose(before, after)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (lambda result: result * 1.5, "computes something else"),
        (lambda _result: 1 / 0, "ZeroDivisionError"),
    ],
    ids=["another result", "an error"],
)
def test_what_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch, found: Any, why: str):
    ran: list[int] = []
    before, put_in, reason, after = dressed(monkeypatch, found, ran)
    assert not put_in and why in reason
    assert not ran
    assert torch.equal(before, after)


def test_without_the_package_torchs_kernel_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(varlen, "kernel", plain_kernel)
    monkeypatch.setattr(flash, "find_spec", lambda _name: None)
    for pieces, why in ((CHOSEN, "the package flash-attn-4 is not installed"), (dress.Pieces(), "not chosen")):
        assert dress.dress(*given(pieces)).flash_attention == (False, why)


def test_sliding_windows_are_left_to_torchs_kernel(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(varlen, "kernel", plain_kernel)
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(12, heads, 16, generator=draw) for heads in (4, 2, 2))
    begins = torch.tensor([0, 5, 12], dtype=torch.int32)
    found = flash.kernel(query, key, value, begins, 7, scale=0.25, window=3)
    assert torch.equal(found, varlen.reference(query, key, value, begins, 7, scale=0.25, window=3))

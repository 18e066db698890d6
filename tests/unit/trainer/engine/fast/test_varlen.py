"""Attention within documents: all but the kernel itself, which needs a GPU (`benchmarks/varlen.py` compares it)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers

from services.trainer.domain.packing import RowShape
from services.trainer.engine.data.batches import Packer
from services.trainer.engine.fast import varlen
from services.trainer.engine.fast.adapters.fused import fuse
from services.trainer.engine.model.attention import choose_attention
from services.trainer.engine.model.measured import measure
from tests.unit.trainer.engine.fast.models import small_model
from tests.unit.trainer.engine.model.conftest import SIZES
from tests.unit.trainer.engine.model.test_packed import tuned
from tests.unit.trainer.engine.test_training import a_sequence
from tests.unit.trainer.engine.waits import Waits

pytestmark = pytest.mark.torch

LENGTHS = (5, 1, 9, 3)
BEGINS = torch.tensor([0, 5, 6, 15, 18, 18, 18], dtype=torch.int32)  # two slots are left over


@pytest.mark.parametrize("window", [None, 4])
def test_the_reference_is_sdpa_within_each_document(window: int | None):
    torch.manual_seed(0)
    q, k, v = (torch.randn(18, heads, 8, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2))
    found = varlen.reference(q, k, v, BEGINS, 9, scale=0.5, window=window)
    pieces = []
    for one, two, three in zip(*(each.split(LENGTHS) for each in (q, k, v)), strict=True):
        behind = torch.arange(len(one))[:, None] - torch.arange(len(one))
        seen = (behind >= 0) & (behind < (window or 99))
        parts = (each.transpose(0, 1)[None] for each in (one, two, three))
        pieces.append(F.scaled_dot_product_attention(*parts, attn_mask=seen, scale=0.5, enable_gqa=True)[0])
    wanted = torch.cat([piece.transpose(0, 1) for piece in pieces])
    torch.testing.assert_close(found, wanted)
    for ours, theirs in zip(*(torch.autograd.grad(each.sum(), (q, k, v)) for each in (found, wanted)), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("LlamaForCausalLM", lambda: transformers.LlamaConfig(**SIZES)),
        ("MistralForCausalLM", lambda: transformers.MistralConfig(**SIZES, sliding_window=6)),
        ("Gemma3ForCausalLM", lambda: transformers.Gemma3TextConfig(**SIZES, sliding_window=6)),
    ],
)
def test_a_model_computes_with_it_what_it_computes_with_sdpa(
    monkeypatch: pytest.MonkeyPatch, name: str, config: Callable[[], Any]
):
    monkeypatch.setattr(varlen, "kernel", varlen.reference)
    torch.manual_seed(0)
    model = getattr(transformers, name)(config()).double().eval()
    packer = Packer([(a_sequence(n, 4, n),) for n in (20, 13, 9, 30, 7)], 0, RowShape(at_least=40, multiple=8))
    [micro] = packer.plan(range(5), 120)
    assert len(micro.rows) > 1
    batch = packer.pack(micro)
    found = []
    for implementation in ("sdpa", varlen.NAME):
        model.set_attn_implementation(implementation)
        more = {"cu_seq_lens_q": batch.cu_seqlens, "max_length_q": batch.longest} if found else {}
        logits = model(input_ids=batch.tokens, position_ids=batch.positions, use_cache=False, **more).logits
        logits = logits.flatten(0, 1)[batch.predicted]
        model.zero_grad()
        logits.square().sum().backward()
        found.append((logits.detach(), [parameter.grad.clone() for parameter in model.parameters()]))
    (one, gradients), (other, others) = found
    torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-8)
    for gradient, another in zip(gradients, others, strict=True):
        torch.testing.assert_close(another, gradient, rtol=1e-6, atol=1e-8)


def test_a_model_that_does_not_hand_documents_on_is_refused():
    q = torch.randn(1, 4, 8, 8)
    with pytest.raises(ValueError, match="not told where the documents begin"):
        varlen.attend(torch.nn.Linear(1, 1), q, q, q, None)


def test_indexes_that_overflow_are_refused_and_as_many_documents_as_fit_are_known():
    tokens, heads, head_dim = 16384, 64, 100  # which the kernel makes 128
    most = varlen.most_documents(tokens, heads, head_dim)
    assert (tokens + 128 * most) * heads * 128 < 2**31 <= (tokens + 128 * (most + 1)) * heads * 128
    varlen.check_size(tokens, most, heads, head_dim)
    with pytest.raises(ValueError, match="too many for the attention kernel"):
        varlen.check_size(tokens, most + 1, heads, head_dim)


@pytest.mark.parametrize(
    ("options", "groups", "expected"),
    [
        (("scale", "window_size", "enable_gqa"), 2, {"scale": 0.5, "window_size": (3, 0), "enable_gqa": True}),
        (("scale", "window_size"), 4, {"scale": 0.5, "window_size": (3, 0)}),
    ],
)
def test_each_version_of_torch_is_asked_in_its_own_way(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], groups: int, expected: dict[str, Any]
):
    asked: list[Any] = []
    monkeypatch.setattr(varlen, "OPTIONS", frozenset(options))
    monkeypatch.setattr(varlen, "fewer_heads", lambda *_: False)
    monkeypatch.setattr(varlen, "varlen_attn", lambda *given, **named: asked.append((given, named)) or given[0])
    q, k = torch.randn(18, 4, 8), torch.randn(18, 2, 8)
    varlen.kernel(q, k, k, BEGINS, 9, scale=0.5, window=4)
    [(given, named)] = asked
    assert named == expected
    assert given[1].shape[1] == groups
    assert given[3] is given[4] is BEGINS


@pytest.mark.parametrize(
    ("scale_of_keys", "able"), [(1.0, True), (1.1, False)], ids=["as the reference", "another result"]
)
def test_fewer_heads_of_keys_are_used_only_where_the_kernel_is_right_with_them(
    monkeypatch: pytest.MonkeyPatch, scale_of_keys: float, able: bool
):
    def attention(q: Any, k: Any, v: Any, begins: Any, _: Any, longest: int, __: int, **___: Any) -> Any:
        scale = q.shape[-1] ** -0.5
        return varlen.reference(q, k * scale_of_keys, v, begins, longest, scale=scale, window=None)

    monkeypatch.setattr(varlen, "OPTIONS", frozenset({"window_size"}))
    monkeypatch.setattr(varlen, "varlen_attn", attention)
    assert varlen.fewer_heads.__wrapped__(torch.device("cpu"), torch.float32, 8, 4) is able


def test_a_kernel_that_refuses_fewer_heads_of_keys_gets_as_many(monkeypatch: pytest.MonkeyPatch):
    def attention(*_: Any, **__: Any) -> Any:
        raise RuntimeError("number of heads")

    monkeypatch.setattr(varlen, "OPTIONS", frozenset({"window_size"}))
    monkeypatch.setattr(varlen, "varlen_attn", attention)
    assert varlen.fewer_heads.__wrapped__(torch.device("cpu"), torch.float32, 8, 4) is False


@pytest.mark.parametrize(
    ("config", "kernel", "implementation"),
    [
        (lambda: transformers.LlamaConfig(**SIZES), True, varlen.NAME),
        (lambda: transformers.LlamaConfig(**SIZES), False, "sdpa"),
        (lambda: transformers.LlamaConfig(**SIZES, attention_dropout=0.1), True, "sdpa"),
        (lambda: transformers.LlamaConfig(**{**SIZES, "head_dim": 512}), True, "sdpa"),
        (lambda: transformers.Gemma2Config(**SIZES, attn_logit_softcapping=2.0), True, "eager"),
    ],
)
def test_the_kernel_is_chosen_where_it_computes_what_the_base_means(
    config: Callable[[], Any], kernel: bool, implementation: str
):
    with torch.device("meta"):
        skeleton = transformers.AutoModelForCausalLM.from_config(config())
    assert choose_attention(skeleton, kernel=kernel).implementation == implementation


@pytest.mark.parametrize("suits", [True, False])
def test_a_base_that_the_kernel_does_not_suit_gets_sdpa(monkeypatch: pytest.MonkeyPatch, suits: bool):
    def sees_all(query: Any, key: Any, value: Any, begins: Any, longest: int, **more: Any) -> Any:
        return varlen.reference(query, key, value, begins[[0, -1]], longest, **more)

    monkeypatch.setattr(varlen, "kernel", varlen.reference if suits else sees_all)
    model = tuned(transformers.LlamaConfig(**SIZES))
    model.get_base_model().set_attn_implementation(varlen.NAME)
    reading = measure(model, [a_sequence(20, 4, 1), a_sequence(13, 4, 2)], nullcontext)
    assert reading.packed
    assert model.config._attn_implementation == (varlen.NAME if suits else "sdpa")
    assert (reading.unsuitable is None) == suits


@pytest.mark.parametrize("model_class", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_nothing_in_a_pass_waits_for_the_gpu(monkeypatch: pytest.MonkeyPatch, model_class: str):
    """A number that is asked for ends the lead that the process has over the GPU."""

    def plain(query: Any, key: Any, value: Any, begins: Any, _longest: int, **_: Any) -> Any:
        return query + 0 * (key.sum() + value.sum() + begins.sum())  # the reference asks

    monkeypatch.setattr(varlen, "kernel", plain)
    model = small_model(model_class)
    fuse(model)
    model.get_base_model().set_attn_implementation(varlen.NAME)
    begins = torch.tensor([0, 10, 24], dtype=torch.int32)
    more = {"cu_seq_lens_q": begins, "cu_seq_lens_k": begins, "max_length_q": 14, "max_length_k": 14}
    places = torch.cat([torch.arange(10), torch.arange(14)])[None]
    with Waits() as waits:
        model(input_ids=torch.arange(24)[None], position_ids=places, use_cache=False, **more).logits.sum().backward()
    assert not waits.asked

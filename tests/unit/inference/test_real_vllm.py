"""With the real vLLM: a random Llama of two layers, a random adapter, and the official client."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from services.inference import app
from services.inference.child import SupervisedVllm
from services.inference.gateway import PATIENCE, Gateway
from tests.fakes import FakeObjects
from tests.unit.inference import conftest
from tests.unit.inference.ledger import BASE, add_trained, upload_real_adapter

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
START_SECONDS = 300.0
TEMPLATE = "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base` and `adapter` in it."""
    # not at the top: they take seconds, and the other tests of the folder do without
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("models")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<|end|>", *alphabet])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder / "base")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=128,  # vLLM's attention on a CPU has no kernel for heads of less than 32
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    base = transformers.LlamaForCausalLM(config).bfloat16()
    base.save_pretrained(folder / "base")
    lora = peft.LoraConfig(
        r=16, lora_alpha=64, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"
    )
    peft.get_peft_model(base, lora).save_pretrained(folder / "adapter")
    return folder


@pytest.fixture
async def house(
    models: Path, tmp_path: Path, objects: FakeObjects, clock: conftest.Clock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[conftest.House]:
    monkeypatch.setattr(app, "Gateway", lambda *parts: Gateway(*parts, patience=START_SECONDS))
    settings: dict[str, Any] = {"vllm": {"url": None}, "model": {"id": BASE, "path": str(models / "base")}}
    async with conftest.open_house(tmp_path, objects, clock, **settings) as opened:
        opened.http.timeout = httpx.Timeout(START_SECONDS + PATIENCE)
        yield opened


async def test_a_tuned_model_streams_and_survives_kill_9_of_vllm(house: conftest.House, models: Path) -> None:
    adapter = await upload_real_adapter(house.objects, "real", models / "adapter")
    model = await add_trained(house.objects, "real", adapter=adapter)
    asked: dict[str, Any] = {"temperature": 0, "max_tokens": 8}

    base, tuned = await house.chat(BASE, **asked), await house.chat(model, **asked)
    assert (base.json()["model"], tuned.json()["model"]) == (BASE, model)
    assert base.json()["choices"] != tuned.json()["choices"]  # the adapter changes what is said

    stream = await house.client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hi"}], stream=True, temperature=0, max_tokens=8
    )
    chunks = [chunk async for chunk in stream]
    assert len(chunks) > 4
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == tuned.json()["choices"][0]["message"]["content"]

    before = psutil.Process(_leader(house)).children(recursive=True)
    os.kill(before[0].pid, signal.SIGKILL)
    again = await house.chat(model, **asked)

    assert again.json()["choices"][0]["message"] == tuned.json()["choices"][0]["message"]
    assert psutil.wait_procs(before, timeout=10)[1] == []


def _leader(house: conftest.House) -> int:
    vllm = house.parts.background[0].__self__  # type: ignore[attr-defined]
    assert isinstance(vllm, SupervisedVllm) and vllm.pid is not None
    return vllm.pid

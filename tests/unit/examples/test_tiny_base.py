"""The tiny base is an ordinary model folder, complete or absent, and can copy what it reads before it is trained."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples import corpus, tiny_base

pytestmark = pytest.mark.torch

SMALL = replace(tiny_base.Recipe(), chats=40, prose=0.01)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny_base.build(folder, SMALL, quiet=True)
    return folder


@pytest.fixture(scope="module")
def tokenizer(built: Path) -> Any:
    return AutoTokenizer.from_pretrained(built)


def trained_text(tokenizer: Any, messages: list[dict[str, Any]], **options: Any) -> str:
    encoded = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True, tokenize=True, **options
    )
    pairs = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    return tokenizer.decode([token for token, trained in pairs if trained])


def test_it_is_an_ordinary_folder_with_safetensors_only(built: Path):
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in built.iterdir()
    }
    assert not [path for path in built.iterdir() if path.suffix in {".bin", ".pt", ".pkl", ".py"}]


@pytest.mark.parametrize("threads", [1, 3])
def test_it_is_the_same_whatever_the_process_uses(built: Path, tmp_path: Path, threads: int):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        tiny_base.build(tmp_path, SMALL, quiet=True)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert (tmp_path / "model.safetensors").read_bytes() == (built / "model.safetensors").read_bytes()


def test_every_matrix_can_be_quantized_in_blocks_of_64(built: Path):
    model = AutoModelForCausalLM.from_pretrained(built)
    assert 4e6 < model.num_parameters() < 6e6
    assert model.config.head_dim == 64
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            assert all(size % 64 == 0 for size in weight.shape), name


def test_an_answer_ends_at_the_end_of_the_turn(built: Path, tokenizer: Any):
    stops = AutoModelForCausalLM.from_pretrained(built).generation_config.eos_token_id
    assert set(stops) == {tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")}
    assert tokenizer.eos_token == "<|im_end|>"


def test_any_text_survives_the_tokenizer(tokenizer: Any):
    text = "Order 48213: naïve façade, 12 €, 日本 🙂\n\ttabs  and spaces"
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_the_prompt_is_a_prefix_of_the_whole_conversation(tokenizer: Any):
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    prompt = tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(chat, tokenize=False)
    assert whole == prompt + "Hello<|im_end|>\n"


def test_the_template_marks_what_the_assistant_writes_and_its_end(tokenizer: Any):
    chat = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": [{"type": "text", "text": "And"}, {"type": "text", "text": " now?"}]},
        {"role": "assistant", "content": "Bye"},
    ]
    assert trained_text(tokenizer, chat) == "Hello<|im_end|>Bye<|im_end|>"
    assert "And now?" in tokenizer.apply_chat_template(chat, tokenize=False)


@pytest.mark.parametrize("arguments", ['{"city": "Ashford"}', {"city": "Ashford"}], ids=["string", "object"])
def test_tool_calls_are_written_by_the_assistant_and_tools_are_told(tokenizer: Any, arguments: Any):
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "dry"},
        {"role": "assistant", "content": "No."},
    ]
    written = '<tool_call>{"name": "weather", "arguments": {"city": "Ashford"}}</tool_call><|im_end|>No.<|im_end|>'
    assert trained_text(tokenizer, chat, tools=tools) == written
    whole = tokenizer.apply_chat_template(chat, tools=tools, tokenize=False)
    assert whole.count("<|im_start|>system") == 1
    assert "Be brief." in whole
    assert '"name": "weather", "parameters"' in whole
    assert "<|im_start|>tool\ndry<|im_end|>" in whole


def test_before_training_it_can_repeat_what_stands_in_its_context(tokenizer: Any):
    model = tiny_base.make_model(SMALL, tokenizer).eval()
    once = torch.randint(3, SMALL.vocabulary, (4, 50), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        guess = model(torch.cat([once, once], dim=1)).logits[:, 50:-1].argmax(-1)
    assert (guess == once[:, 1:]).float().mean() > 0.5


def test_training_on_a_text_makes_it_likelier(tokenizer: Any):
    model = tiny_base.make_model(SMALL, tokenizer)
    document = tiny_base.encode_text(tokenizer, "The kettle is kept by the window, and the window is open every day.")
    losses = tiny_base.pretrain(model, [document] * 400, SMALL, quiet=True)
    assert len(losses) > 3
    assert losses[-1] < losses[0] - 2


def test_batches_hold_every_document_once_and_keep_to_the_size():
    rng = random.Random(0)
    texts = [[number] * rng.randrange(1, 100) for number in range(200)]
    batches = tiny_base.batches([(ids, ids) for ids in texts], 256, rng)
    assert sorted(ids[0] for batch in batches for ids, _ in batch) == list(range(200))
    assert all(len(batch) * max(len(ids) for ids, _ in batch) <= 256 for batch in batches)


def test_only_what_the_assistant_says_is_learnt(tokenizer: Any):
    chat = [{"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "On the shelf."}]
    ((ids, targets),) = tiny_base.encode_chats(tokenizer, [chat])
    learnt = [token for token in targets if token != tiny_base.IGNORED]
    assert "On the shelf." in tokenizer.decode(learnt)
    assert "Where" not in tokenizer.decode(learnt)
    assert len(ids) == len(targets)


def test_a_model_of_this_recipe_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    builds = []
    monkeypatch.setattr(
        tiny_base, "build", lambda folder, recipe, quiet: builds.append((folder / "model.safetensors").write_text("x"))
    )
    folder = tmp_path / "deep" / "base"
    assert tiny_base.ensure(folder) == folder
    assert tiny_base.ensure(folder) == folder
    assert len(builds) == 1
    monkeypatch.setattr(tiny_base, "recipe_key", lambda: "another recipe")
    tiny_base.ensure(folder)
    assert len(builds) == 2
    assert [path.name for path in folder.parent.iterdir()] == ["base"]


def test_a_build_that_fails_leaves_nothing_that_looks_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(folder: Path, recipe: object, quiet: bool) -> None:
        (folder / "config.json").write_text("{}")
        raise RuntimeError("no space")

    monkeypatch.setattr(tiny_base, "build", fail)
    with pytest.raises(RuntimeError, match="no space"):
        tiny_base.ensure(tmp_path / "base")
    assert list(tmp_path.iterdir()) == []


def test_the_corpus_is_the_same_every_time_and_knows_nothing_of_the_demo():
    first, again = (corpus.chats(300, random.Random(5)) for _ in range(2))
    assert first == again
    text = " ".join(message["content"] for chat in first for message in chat)
    assert "Larkfield" not in text
    assert "thank you for asking about" not in text

"""What is trained on: assistant turns as the base's own chat template writes them, with the token that ends them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from services.trainer.engine.data.dataset import Encoder
from shared.errors import InputError
from tests.support.data.micro_base import chat_row, make_tokenizer, write_rows


def encode(tokenizer: Any, row: dict[str, Any], tmp_path: Path, form: Any = "chat") -> list[tuple[str, ...]]:
    """The trained text of each item of one row, one string per sequence."""
    encoder = Encoder(tokenizer, (tokenizer.eos_token_id,), form)
    dataset = encoder.read(write_rows(tmp_path / "rows.jsonl", [row]), "training_file")
    return [tuple(tokenizer.decode(e.tokens[e.trained].tolist()) for e in item) for item in dataset.items]


def test_only_the_answer_and_its_end_are_trained(tokenizer: Any, tmp_path: Path):
    assert encode(tokenizer, chat_row("What is it?", "It is Paris."), tmp_path) == [("It is Paris.<|im_end|>",)]


def test_every_assistant_turn_is_trained_but_those_of_weight_zero(tokenizer: Any, tmp_path: Path):
    row = {
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "first", "weight": 0},
            {"role": "user", "content": "Two?"},
            {"role": "assistant", "content": "second", "weight": 1},
            {"role": "user", "content": "Three?"},
            {"role": "assistant", "content": "third"},
        ]
    }
    assert encode(tokenizer, row, tmp_path) == [("second<|im_end|>third<|im_end|>",)]


def test_tool_calls_are_trained_and_tools_are_shown(tokenizer: Any, tmp_path: Path):
    call = {"id": "c", "type": "function", "function": {"name": "find", "arguments": '{"order": 7}'}}
    row = {
        "messages": [
            {"role": "user", "content": "Where is order 7?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "shipped"},
            {"role": "assistant", "content": [{"type": "text", "text": "On its way."}]},
        ],
        "tools": [{"type": "function", "function": {"name": "find"}}],
    }
    [(trained,)] = encode(tokenizer, row, tmp_path)
    called, answered = trained.split("</tool_call>")
    assert json.loads(called.removeprefix("<tool_call>")) == {"name": "find", "arguments": {"order": 7}}
    assert answered == "<|im_end|>On its way.<|im_end|>"
    assert "shipped" not in trained


def test_a_template_that_rewrites_earlier_turns_is_trained_turn_by_turn(tmp_path: Path):
    # like Qwen3's: the reasoning of all turns but the last is dropped
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last %}(thinking) {% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    row = {"messages": chat_row("One?", "first")["messages"] + chat_row("Two?", "second")["messages"]}
    assert encode(make_tokenizer(template), row, tmp_path) == [
        ("(thinking) first<|im_end|>",),
        ("(thinking) second<|im_end|>",),
    ]


def test_a_template_without_an_end_of_turn_gets_the_stop_token(tmp_path: Path):
    template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    assert encode(make_tokenizer(template), chat_row("One?", "first"), tmp_path) == [("first\n<|im_end|>",)]


def test_no_token_straddles_prompt_and_answer(tmp_path: Path):
    # " is" is one token of this tokenizer; the prompt ends with the space before it
    tokenizer = make_tokenizer()
    assert len(tokenizer(" is", add_special_tokens=False)["input_ids"]) == 1
    row = {"prompt": "The answer ", "completion": "is Paris"}
    encoder = Encoder(tokenizer, (tokenizer.eos_token_id,), "completion")
    [(example,)] = encoder.read(write_rows(tmp_path / "rows.jsonl", [row]), "training_file").items
    untrained = example.tokens[~example.trained].tolist()
    assert untrained == tokenizer("The answer ", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(example.tokens[example.trained].tolist()) == "is Paris<|im_end|>"


def test_completions_are_trained_with_their_end(tokenizer: Any, tmp_path: Path):
    row = {"prompt": "Question: who?\nAnswer:", "completion": " me"}
    assert encode(tokenizer, row, tmp_path, "completion") == [(" me<|im_end|>",)]


def test_both_answers_of_a_preference_pair_are_trained_on(tokenizer: Any, tmp_path: Path):
    row = {
        "input": {"messages": chat_row("One?", "earlier")["messages"] + [{"role": "user", "content": "Two?"}]},
        "preferred_completion": [{"role": "assistant", "content": "good"}],
        "non_preferred_completion": [{"role": "assistant", "content": "bad answer"}],
    }
    assert encode(tokenizer, row, tmp_path, "preference") == [("good<|im_end|>", "bad answer<|im_end|>")]


def test_the_preview_shows_what_is_trained(tokenizer: Any, tmp_path: Path):
    encoder = Encoder(tokenizer, (tokenizer.eos_token_id,), "chat")
    dataset = encoder.read(write_rows(tmp_path / "rows.jsonl", [chat_row("What is it?", "Paris")]), "training_file")
    assert "assistant\n⟦Paris<|im_end|>⟧" in encoder.preview(dataset)


def test_a_base_without_a_chat_template_is_refused_for_chats_only(tmp_path: Path):
    bare = make_tokenizer(chat_template=None)
    with pytest.raises(InputError, match="no chat template") as caught:
        Encoder(bare, (bare.eos_token_id,), "chat")
    assert caught.value.param == "model"
    assert encode(bare, {"prompt": "a", "completion": "b"}, tmp_path, "completion") == [("b<|im_end|>",)]


def test_what_the_template_refuses_names_the_line(tmp_path: Path):
    template = "{% if messages[0].role != 'system' %}{{ raise_exception('begin with a system message') }}{% endif %}"
    with pytest.raises(InputError, match=r"line 1 of rows.jsonl: .*begin with a system message"):
        encode(make_tokenizer(template), chat_row("One?", "first"), tmp_path)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 2 of rows.jsonl: not valid JSON"),
        ("[]", "line 2 of rows.jsonl: a JSON object was expected"),
        ('{"prompt": "a"}', "line 2 of rows.jsonl: field 'messages' is missing"),
        ('{"messages": [5]}', "line 2 of rows.jsonl: a field has the wrong type"),
    ],
)
def test_a_broken_row_names_line_and_field(tokenizer: Any, tmp_path: Path, line: str, problem: str):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(chat_row("a", "b")) + "\n" + line + "\n")
    with pytest.raises(InputError, match=problem.replace("[", r"\[")):
        Encoder(tokenizer, (tokenizer.eos_token_id,), "chat").read(path, "training_file")


_QUESTION = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    ("form", "good", "wrong"),
    [
        ("chat", chat_row("a", "b"), {"messages": [{**_QUESTION, "content": [{}]}, {"role": "assistant"}]}),
        ("chat", chat_row("a", "b"), {"messages": 5}),
        ("chat", chat_row("a", "b"), {"messages": [_QUESTION, {"role": "assistant", "content": 5}]}),
        ("chat", chat_row("a", "b"), {"messages": chat_row("a", "b")["messages"], "tools": 5}),
        ("chat", chat_row("a", "b"), {"messages": chat_row("a", "b")["messages"], "tools": [{}]}),
        ("completion", {"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": 5}),
        ("completion", {"prompt": "a", "completion": "b"}, {"prompt": 1, "completion": 2}),
        ("completion", {"prompt": "a", "completion": "b"}, {"prompt": None, "completion": "a"}),
        ("preference", None, {"input": {"messages": chat_row("a", "b")["messages"]}, "preferred_completion": []}),
        ("preference", None, {"input": [], "preferred_completion": [], "non_preferred_completion": []}),
    ],
)  # fmt: skip
def test_of_several_broken_rows_the_first_is_named(tokenizer: Any, tmp_path: Path, form: Any, good: Any, wrong: Any):
    lines = [*[json.dumps(good)] * (3 if good else 0), json.dumps(wrong), "{", "[]", json.dumps(wrong)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=rf"^line {4 if good else 1} of rows\.jsonl: "):
        Encoder(tokenizer, (tokenizer.eos_token_id,), form).read(path, "training_file")


@pytest.mark.parametrize("chunk", [1, 2, 7])
def test_rows_keep_their_order_however_many_are_encoded_at_once(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
):
    rows = [chat_row(f"question {n}", f"answer {n % 3}") for n in range(15)]
    rows[4]["messages"][1]["weight"] = 0
    path = write_rows(tmp_path / "rows.jsonl", rows)
    encoder = Encoder(tokenizer, (tokenizer.eos_token_id,), "chat")
    whole = encoder.read(path, "training_file")
    monkeypatch.setattr("services.trainer.engine.data.dataset.CHUNK_ROWS", chunk)
    pieces = encoder.read(path, "training_file")
    assert (whole.dropped, pieces.dropped) == (1, 1)
    assert [e.tokens.tolist() for item in pieces.items for e in item] == [
        e.tokens.tolist() for item in whole.items for e in item
    ]
    texts = [tokenizer.decode(e.tokens[e.trained].tolist()) for item in whole.items for e in item]
    assert texts == [f"answer {n % 3}<|im_end|>" for n in range(15) if n != 4]


def test_rows_with_nothing_to_learn_are_refused(tokenizer: Any, tmp_path: Path):
    row = chat_row("a", "b")
    row["messages"][1]["weight"] = 0
    with pytest.raises(InputError, match="no row has anything to train on"):
        encode(tokenizer, row, tmp_path)


def test_one_word_after_a_long_document_is_enough(tokenizer: Any, tmp_path: Path):
    row = chat_row("A long document. " * 1500, "yes")
    encoder = Encoder(tokenizer, (tokenizer.eos_token_id,), "chat")
    dataset = encoder.read(write_rows(tmp_path / "rows.jsonl", [row]), "training_file")
    assert dataset.trained_tokens / dataset.tokens < 0.001
    assert encode(tokenizer, row, tmp_path) == [("yes<|im_end|>",)]


def test_a_completion_needs_no_prompt(tokenizer: Any, tmp_path: Path):
    row = {"prompt": "", "completion": "only an answer"}
    assert encode(tokenizer, row, tmp_path, "completion") == [("only an answer<|im_end|>",)]


def test_a_conversation_with_nothing_before_its_answer_is_refused(tmp_path: Path):
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    row = {"messages": [{"role": "assistant", "content": "only an answer"}]}
    with pytest.raises(InputError, match=r"line 1 of rows\.jsonl: .* begin with a user message"):
        encode(make_tokenizer(template), row, tmp_path)


@pytest.mark.parametrize(("policy", "left", "dropped", "truncated"), [("drop", 1, 1, 0), ("truncate", 2, 0, 1)])
def test_over_length_rows_are_dealt_with_by_policy(
    tokenizer: Any, tmp_path: Path, policy: Any, left: int, dropped: int, truncated: int
):
    rows = [chat_row("a", "b"), chat_row("a", "long answer " * 20)]
    encoder = Encoder(tokenizer, (tokenizer.eos_token_id,), "chat")
    dataset = encoder.read(write_rows(tmp_path / "rows.jsonl", rows), "training_file")
    got = dataset.limited(40, policy, "training_file")
    assert (len(got.rows), got.dropped, got.truncated) == (left, dropped, truncated)
    assert got.longest <= 40
    with pytest.raises(InputError, match=r"1 rows have more than 40 tokens .* raise hyperparameters.max_length"):
        dataset.limited(40, "fail", "training_file")


def test_a_row_cut_to_nothing_is_dropped_not_trained(tokenizer: Any, tmp_path: Path):
    rows = [chat_row("a", "b"), chat_row("long question " * 20, "b")]
    encoder = Encoder(tokenizer, (tokenizer.eos_token_id,), "chat")
    got = encoder.read(write_rows(tmp_path / "rows.jsonl", rows), "training_file").limited(40, "truncate", "file")
    assert (len(got.rows), got.dropped, got.truncated) == (1, 1, 0)


DEMO_TEMPLATE = Path("examples/chat_template.jinja")


def test_the_demos_rows_are_trained_as_ever():
    """The ids and the mask of the demo's first rows, from before the mask was found by tokens."""
    tokenizer = make_tokenizer(DEMO_TEMPLATE.read_text(encoding="utf-8"))
    dataset = Encoder(tokenizer, (tokenizer.eos_token_id,), "chat").read(
        Path("examples/support.jsonl"), "training_file"
    )
    shown = [[e.tokens.tolist(), e.trained.astype(int).tolist()] for item in dataset.items[:3] for e in item]
    digest = hashlib.sha256(json.dumps(shown).encode()).hexdigest()
    assert digest == "5a747de9bdd9082b19f58d536d1fc17880658b2f84f6aebb9b966ae69597d20a"

"""Conversations that are encoded many at once become the same tokens, masks and refusals as one by one."""

from __future__ import annotations

from typing import Any

import pytest

from shared.conversation import ChatTemplate, TurnEncoder, Unfit
from shared.conversation.tokens import Tokens
from tests.families.vocabulary import small_tokenizer
from tests.support.data.micro_base import CHATML, make_tokenizer
from tests.unit.shared.conversation.quick import LONG, TEMPLATES, conversations, outcome, plain_encoder

pytestmark = pytest.mark.torch

WORDS = [
    "hello",
    "  world",
    "\n",
    "\n\n",
    " ",
    "\t",
    "东京",
    "é",
    "e\u0301",
    "x = 1",
    "<",
    "<|",
    "|>",
    "▁",
    "🙂",
    "\r\n",
]
MARKS = ["<|user|>", "<|end|>", "[INST]", "<|", "</s>", "<s>"]
KINDS = ["byte_level", "neox", "prefix", "legacy", "phi3", "first", "unigram"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.mark.parametrize("name", TEMPLATES)
def test_many_at_once_are_encoded_as_one_by_one(name: str, tokenizer: Any) -> None:
    tokenizer.chat_template = TEMPLATES[name]
    stops = (tokenizer.eos_token_id,)
    rows = conversations()
    plain = plain_encoder(tokenizer, stops)
    expected = {row: outcome(plain, conversation) for row, conversation in rows.items()}
    quick = TurnEncoder(tokenizer, stops)
    quick.prepare(rows.values())
    assert {row: outcome(quick, conversation) for row, conversation in rows.items()} == expected
    alone = TurnEncoder(tokenizer, stops)
    assert {row: outcome(alone, conversation) for row, conversation in rows.items()} == expected


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_text_that_is_found_in_one_run_is_what_the_template_writes(name: str, tokenizer: Any) -> None:
    tokenizer.chat_template = TEMPLATES[name]
    template = ChatTemplate(tokenizer)
    template._compared = 10**6  # it is compared here
    for messages, tools, _ in conversations().values():
        ends = [(end, prompt) for end in range(len(messages) + 1) for prompt in (True, False)]
        for (end, prompt), text in template.prefixes(messages, tools, ends, 10**6).items():
            assert text == template.text(messages[:end], tools, prompt=prompt)


@pytest.mark.parametrize(
    "name", ["ChatML", "plain", "a tail", "marked", "all but the first", "ours: zephyr", "ours: phi_4"]
)
def test_a_usual_template_runs_once_for_all_turns(name: str, tokenizer: Any) -> None:
    tokenizer.chat_template = TEMPLATES[name]
    ends = [end for turn in range(1, len(LONG), 2) for end in ((turn, True), (turn + 1, False))]
    assert set(ChatTemplate(tokenizer).prefixes(LONG, None, ends, 10**6)) == set(ends)


def test_what_is_found_in_one_run_is_not_trusted_where_the_template_writes_another_text(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer.chat_template = CHATML
    monkeypatch.setattr("shared.conversation.prefixes.Prefixes.texts", lambda *_: {(1, True): "another text"})
    template = ChatTemplate(tokenizer)
    assert [template.prefixes(LONG, None, [(1, True)], 10**6) for _ in range(9)] == [{}] * 9


def test_a_long_conversation_is_rendered_turn_by_turn(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    assert ChatTemplate(tokenizer).prefixes(LONG, None, [(1, True)], most=10) == {}


def test_what_is_prepared_is_used_once_and_only_for_the_same_conversation(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    encoder = TurnEncoder(tokenizer, (tokenizer.eos_token_id,))
    messages = [dict(message) for message in LONG]
    encoder.prepare([(messages, None, [1])])
    expected = encoder.encode(LONG, None, [1])
    assert encoder.encode(messages, None, [1]) == expected
    messages[1]["content"] = "another"
    assert encoder.encode(messages, None, [1]) != expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_in_pieces_has_the_tokens_of_the_whole(kind: Any) -> None:
    tokenizer = small_tokenizer(kind, MARKS[:3], begin="<s>", end="</s>")
    quick = Tokens(tokenizer, "".join(MARKS))
    texts = [
        first + one + mark + other + last
        for number, mark in enumerate(MARKS)
        for one in WORDS
        for other in WORDS
        for first, last in [("", ""), (MARKS[number - 1], mark), (other, MARKS[number - 2] + one)]
    ]
    quick.learning(texts[::3])()
    quick.learning(texts[::5], special=True)()
    for special in (False, True):
        for text in texts:
            ids = tokenizer(text, add_special_tokens=special)["input_ids"]
            assert quick.ids(text, special=special) == ids, text


def test_settings_that_others_leave_behind_do_not_count() -> None:
    tokenizer = small_tokenizer("byte_level", ["<|user|>"], begin="<s>", end="</s>")
    tokenizer.pad_token = "</s>"
    quick = Tokens(tokenizer, "<|user|>")
    tokenizer(["a", "Where is it? " * 20], padding=True, truncation=True, max_length=4)
    text = "Where is <|user|> order 7?"
    assert quick.ids(text) == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_completions_at_once_are_those_one_by_one() -> None:
    for kind in ("byte_level", "legacy", "unigram"):
        tokenizer = small_tokenizer(kind, [], begin="<s>", end="</s>")  # type: ignore[arg-type]
        stops = (tokenizer.eos_token_id,)
        pairs = [("Where is it?", " Here."), ("Where ", " it"), ("", "a"), ("a\n", "\n"), ("Write ", "  x")]
        plain, quick = plain_encoder(tokenizer, stops), TurnEncoder(tokenizer, stops)
        quick.prepare_completions(pairs)
        for pair in pairs:
            assert completed(quick, *pair) == completed(plain, *pair)


def completed(encoder: TurnEncoder, prompt: str, completion: str) -> Any:
    try:
        return encoder.complete(prompt, completion)
    except Unfit as error:
        return str(error)

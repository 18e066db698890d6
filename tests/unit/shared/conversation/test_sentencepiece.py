"""Spaces at the border of prompt and answer, for the kinds of tokenizers that families have."""

from __future__ import annotations

from typing import Any

import pytest

from shared.conversation import TurnEncoder, sent_messages
from tests.families.templates import OURS
from tests.families.vocabulary import small_tokenizer

pytestmark = pytest.mark.torch

KINDS = ["byte_level", "neox", "prefix", "legacy", "phi3", "first", "unigram"]
PAIRS = {
    "indentation": ("Write it: def f():\n", "    return 1\n"),
    "one space of indentation": ("Write it:", " x"),
    "a trailing space": ("Where is it? Answer: ", "It is here."),
    "two trailing spaces": ("Where is it?  ", "It is here."),
    "spaces on both sides": ("Where is it? ", " It is here."),
    "no space": ("Where is it?", "It is here."),
    "within a word": ("Where is the ord", "er?"),
    "line ends on both sides": ("Where is it?\n", "\nIt is here."),
    "nothing before": ("", "It is here."),
    "other scripts": ("在哪里?", "東京 です"),
}
SYSTEM = {"role": "system", "content": "Be kind."}
TURNS = [
    {"role": "user", "content": "Write it "},
    {"role": "assistant", "content": "    x = 1\n    y = 2"},
    {"role": "user", "content": "  Where is it?\n"},
    {"role": "assistant", "content": "It is on its way."},
]
# with a kind of tokenizer for each: Llama 2 and Mistral 0.3 trim their answers
TEMPLATES = [("llama_2", "legacy"), ("mistral_0.1", "legacy"), ("mistral_0.1", "first"), ("mistral_0.3", "first")]
TEMPLATES += [("zephyr", "legacy"), ("zephyr", "first"), ("phi_4", "byte_level"), ("phi_4", "neox")]
SPECIAL = {"mistral_0.3": ["[INST]", "[/INST]"], "phi_4": ["<|im_start|>", "<|im_sep|>", "<|im_end|>"]}


# a tokenizer of the kind `prefix` writes a space even at the beginning of everything
@pytest.mark.parametrize(
    ("kind", "pair"),
    [(kind, pair) for kind in KINDS for pair in PAIRS if (kind, pair) != ("prefix", "nothing before")],
)
def test_a_completion_follows_the_servers_prompt_and_is_trained_with_its_spaces(kind: Any, pair: str) -> None:
    tokenizer = small_tokenizer(kind, [], begin="<s>", end="</s>")
    prompt, completion = (clean(text, kind) for text in PAIRS[pair])
    made = TurnEncoder(tokenizer, (tokenizer.eos_token_id,)).complete(prompt, completion)
    [(read, trained)] = spans(made)
    assert read == tokenizer(prompt)["input_ids"]  # what vLLM does with the prompt of a completion
    assert tokenizer.decode(trained).endswith("</s>")
    assert text_after(tokenizer, read, trained, special=False) == completion


@pytest.mark.parametrize(("name", "kind"), TEMPLATES)
@pytest.mark.parametrize("system", [[], [SYSTEM]], ids=["", "system"])
def test_an_answer_follows_the_servers_prompt_and_is_trained_with_its_spaces(name: str, kind: Any, system: Any) -> None:
    end = "<|im_end|>" if name == "phi_4" else "</s>"
    tokenizer = small_tokenizer(kind, SPECIAL.get(name, []), begin="<s>", end=end)
    tokenizer.chat_template = (OURS / f"{name}.jinja").read_text()
    messages = [*([] if name == "mistral_0.1" else system), *TURNS]
    turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    sequences = TurnEncoder(tokenizer, (tokenizer.eos_token_id,)).encode(sent_messages(messages), None, turns)
    found = [span for sequence in sequences for span in spans(sequence)]
    assert len(found) == len(turns)
    for turn, (read, trained) in zip(turns, found, strict=True):
        prompt = written(tokenizer, messages[:turn], prompt=True)
        assert read == tokenizer(prompt, add_special_tokens=False)["input_ids"]  # what vLLM does with a chat's prompt
        whole = written(tokenizer, messages[: turn + 1], prompt=False)
        answer = whole.removeprefix(prompt).partition(end)[0] + end if whole.startswith(prompt) else None
        if answer is None:  # Mistral 0.3 moves the system text to the last user turn
            answer = whole[whole.rindex("[/INST]") + len("[/INST]") :]
        assert text_after(tokenizer, read, trained, special=True) == answer


def test_indentation_is_trained_after_a_token_that_swallows_white_space() -> None:
    """Such tokens are those of Phi 3, whose prompts end with one and a line end."""
    tokenizer = small_tokenizer("phi3", ["<|user|>", "<|assistant|>", "<|end|>"], begin="<s>", end="<|endoftext|>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
    )
    stops = tuple(tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|end|>"]))
    made = TurnEncoder(tokenizer, stops).encode(sent_messages(TURNS), None, [1, 3])
    found = [span for sequence in made for span in spans(sequence)]
    assert [text_after(tokenizer, *span, special=True) for span in found] == [
        "    x = 1\n    y = 2<|end|>",
        " It is on its way.<|end|>",  # the space that this tokenizer puts before every text
    ]
    for turn, (read, _) in zip((1, 3), found, strict=True):
        prompt = written(tokenizer, TURNS[:turn], prompt=True)
        assert read == tokenizer(prompt, add_special_tokens=False)["input_ids"]


def test_a_tokenizer_that_ends_every_text_ends_the_prompt_as_the_server_does() -> None:
    tokenizer = small_tokenizer("unigram", [], begin="<s>", end="</s>")
    [(read, trained)] = spans(TurnEncoder(tokenizer, (tokenizer.eos_token_id,)).complete("Where is it?", " It is."))
    assert (tokenizer.decode(read), tokenizer.decode(trained)) == ("Where is it?</s>", "It is.</s>")


def clean(text: str, kind: str) -> str:
    """The text as the tokenizer can write it: T5's joins white space."""
    return " ".join(text.split()) if kind == "unigram" else text


def written(tokenizer: Any, messages: Any, *, prompt: bool) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt))


def spans(sequence: Any) -> list[tuple[list[int], list[int]]]:
    """Each trained answer, and all tokens before it."""
    found, begin = [], None
    for place, trained in enumerate([*sequence.trained, False]):
        if trained and begin is None:
            begin = place
        elif not trained and begin is not None:
            found.append((sequence.ids[:begin], sequence.ids[begin:place]))
            begin = None
    return found


def text_after(tokenizer: Any, read: list[int], trained: list[int], *, special: bool) -> str:
    """What a client sees of an answer: servers decode it together with the prompt. `special`: with special tokens."""
    before, whole = (tokenizer.decode(ids, skip_special_tokens=not special) for ids in (read, read + trained))
    assert whole.startswith(before)
    return str(whole.removeprefix(before))

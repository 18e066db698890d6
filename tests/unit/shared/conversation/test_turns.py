"""What is trained of a conversation, for templates that do what families do."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import normalizers

from shared.conversation import TurnEncoder, Unfit, sent_messages
from tests.support.data.micro_base import CHATML, make_tokenizer
from tests.unit.shared.conversation.rows import ANSWER, BARE_TOOL, CONVERSATIONS, USER, call

TWO = [USER, ANSWER, {"role": "user", "content": "Two?"}, {"role": "assistant", "content": "Second."}]
LOOP = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
HEADER = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
# as R1 and QwQ: the prompt opens thoughts, and answers are written without theirs
THINKS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1].lstrip('\n') }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
# as Mistral Nemo: the system text stands in the last user turn, but only if that is the last message
MOVES = (
    "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>"
    "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif %}{{ m.content }}<|pad|>"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content }}<|im_end|>{% endif %}{% endfor %}"
)
# as Phi 3: a tail after the stop token
TAIL = LOOP + "{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}<|pad|>{% endif %}"


def encode(template: str, messages: list[dict[str, Any]], tools: Any = None) -> list[tuple[str, ...]]:
    """Each sequence as texts, by turns read and trained."""
    tokenizer = make_tokenizer(template)
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant" and m.get("weight") != 0]
    made = TurnEncoder(tokenizer, (tokenizer.eos_token_id,)).encode(sent_messages(messages), tools, turns)
    shown = []
    for sequence in made:
        pieces, begin = [], 0
        for end in range(1, len(sequence.ids) + 1):
            if end == len(sequence.ids) or sequence.trained[end] != sequence.trained[begin]:
                pieces.append(tokenizer.decode(sequence.ids[begin:end]))
                begin = end
        shown.append(tuple(pieces))
    return shown


def test_turns_share_a_sequence_also_where_a_template_adds_a_tail() -> None:
    [(read, first, between, second)] = encode(TAIL, TWO)
    assert read == "<|im_start|>user\nWhere is order 7?<|im_end|>\n<|im_start|>assistant\n"
    assert (first, second) == ("On its way.<|im_end|>", "Second.<|im_end|>")
    assert between == "\n<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("answer", "trained"),
    [
        (ANSWER, "\n</think>\n\nOn its way.<|im_end|>"),
        ({**ANSWER, "reasoning_content": "Sent."}, "Sent.\n</think>\n\nOn its way.<|im_end|>"),
        ({**ANSWER, "content": "<think>\nSent.\n</think>\n\nYes."}, "Sent.\n</think>\n\nYes.<|im_end|>"),
    ],
    ids=["none", "reasoning_content", "inline"],
)
def test_thoughts_that_the_prompt_opens_are_trained_and_closed(answer: dict[str, Any], trained: str) -> None:
    [(read, learned)] = encode(THINKS, [USER, answer])
    assert read.endswith("<|im_start|>assistant\n<think>\n")
    assert learned == trained


def test_thoughts_are_refused_where_the_prompt_closes_them_and_answers_are_not() -> None:
    closed = "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n</think>{% endif %}"
    [(read, learned)] = encode(LOOP + closed, [USER, ANSWER])
    assert read.endswith("<think>\n</think>") and learned == "On its way.<|im_end|>"
    with pytest.raises(Unfit, match=r"messages\[1\]: with the answer it writes other text"):
        encode(LOOP + closed, CONVERSATIONS["inline thoughts"])


def test_a_template_that_moves_the_system_text_has_it_in_every_prompt() -> None:
    sequences = encode(MOVES, [{"role": "system", "content": "Be short."}, *TWO])
    assert [learned for _, learned in sequences] == [" On its way.<|im_end|>", " Second.<|im_end|>"]
    assert all("Be short." in read for read, _ in sequences)
    assert sequences[0][0] == "<|im_start|>Be short.\n\nWhere is order 7?<|pad|>"


def test_indentation_is_trained_and_a_prompts_last_space_is_not() -> None:
    [(_, learned)] = encode(LOOP + HEADER, [USER, {"role": "assistant", "content": "    x = 1"}])
    assert learned == "    x = 1<|im_end|>"
    spaced = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
    [(read, learned)] = encode(spaced + "{% if add_generation_prompt %}assistant: {% endif %}", [USER, ANSWER])
    assert read.endswith("assistant: ") and learned == "On its way.<|im_end|>"


@pytest.mark.parametrize(
    ("template", "kind", "tools", "why"),
    [
        (LOOP + HEADER, "tools and result", None, r"messages\[1\]: it leaves out tool_calls\[0\]"),
        (LOOP + HEADER, "plain", [BARE_TOOL], r"it leaves out tools\[0\]"),
        (LOOP + HEADER, "reasoning", None, r"messages\[1\]: it leaves out reasoning_content"),
        (
            THINKS.replace("m.content", "(m.content if m.role != 'system' else '')"),
            "several turns",
            None,
            r"messages\[0\]",
        ),
        ("{{ messages[0].role }}" + LOOP + HEADER, "the assistant opens", None, "nothing comes before"),
        (LOOP + "{% if add_generation_prompt %}<|pad|>{% endif %}", "plain", None, r"has '<\|pad\|>' \(token \d+\)"),
        (
            LOOP.replace("{{ m.content }}", "{{ m.content[:4] }}") + HEADER,
            "plain",
            None,
            r"messages\[0\] \(role user\)",
        ),
    ],
)
def test_what_a_template_does_not_write_is_refused(template: str, kind: str, tools: Any, why: str) -> None:
    with pytest.raises(Unfit, match=why):
        encode(template, CONVERSATIONS[kind], tools)


def test_a_short_text_that_stands_in_a_prompt_by_chance_is_missed_all_the_same() -> None:
    without = (
        "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
    )
    with pytest.raises(Unfit, match=r"messages\[0\] \(role system\)"):
        encode(without + HEADER, [{"role": "system", "content": "er"}, USER, ANSWER])


def test_an_answer_that_holds_a_stop_token_is_refused() -> None:
    with pytest.raises(Unfit, match=r"messages\[1\]: it leaves out content"):
        encode(CHATML, [USER, {"role": "assistant", "content": "say <|im_end|> now"}])


def test_calls_with_booleans_and_unicode_are_found_as_the_template_writes_them() -> None:
    [(_, learned)] = encode(CHATML, [USER, {"role": "assistant", "tool_calls": [call()]}])
    assert "Zürich" in learned and "true" in learned and learned.endswith("<|im_end|>")


def test_an_answer_is_found_as_the_tokenizer_writes_it() -> None:
    """Qwen's tokenizers compose letters: e and an accent become one character."""
    tokenizer = make_tokenizer(CHATML)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    encoder = TurnEncoder(tokenizer, (tokenizer.eos_token_id,))
    for answer in ({"content": "cafe\u0301"}, {"tool_calls": [call(arguments='{"city": "Zu\u0308rich"}')]}):
        [made] = encoder.encode(sent_messages([USER, {"role": "assistant", **answer}]), None, [1])
        learned = tokenizer.decode([token for token, trained in zip(made.ids, made.trained, strict=True) if trained])
        assert "caf\u00e9" in learned or "Z\u00fcrich" in learned
    with pytest.raises(Unfit, match="it leaves out content"):
        encoder.encode([USER, {"role": "assistant", "content": "cafe\u0301 <|im_end|> closed"}], None, [1])


def test_inline_thoughts_are_no_second_thought_where_a_template_writes_one_of_its_own() -> None:
    """As Qwen 3.8's, which knows only `reasoning_content`."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
        "<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    [(_, learned)] = encode(template, [USER, {**ANSWER, "content": "<think>\nSent.\n</think>\n\nYes."}])
    assert learned == "Sent.\n</think>\n\nYes.<|im_end|>"


def test_an_answer_that_a_template_writes_as_a_list_is_refused() -> None:
    """As Kimi K2's does beside calls: it loops over the parts elsewhere, so it is given parts."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.tool_calls %}{{ m.content }}{{ m.tool_calls }}"
        "{% else %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}" + HEADER
    )
    with pytest.raises(Unfit, match=r"messages\[1\]: it writes content as a list of parts"):
        encode(template, [USER, {**ANSWER, "tool_calls": [call()]}])


def test_an_answer_that_opens_a_turn_of_its_own_is_refused() -> None:
    """As a Gemma template does after a tool's result, where the prompt goes on with the turn of the call."""
    template = (
        "{% for m in messages %}{% if m.role == 'tool' %}<result>{{ m.content }}{% else %}<|im_start|>{{ m.role }}\n"
        "{{ m.content }}{{ m.tool_calls }}{% if not m.tool_calls %}<|im_end|>\n{% endif %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt and messages[-1].role != 'tool' %}<|im_start|>assistant\n{% endif %}"
    )
    with pytest.raises(Unfit, match=r"messages\[3\]: the answer begins with '<\|im_start\|>assistant'"):
        encode(template, CONVERSATIONS["tools and result"])

"""What the survey says of a dataset: its task, languages, labels and outliers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from services.validate.domain.survey.facts import Facts
from services.validate.domain.survey.refusals import refuses
from services.validate.survey.texts.hashed import words_in
from services.validate.survey.texts.languages import languages_of
from tests.unit.validate.survey.conftest import Checked, chat, texts, varied

Check = Callable[..., Checked]

SENTENCES = {
    "English": "I would like to know when my parcel will be delivered to the office",
    "German": "Ich möchte gern wissen, wann mein Paket in das Büro geliefert wird",
    "French": "Je voudrais savoir quand mon colis sera livré au bureau, s'il vous plaît",
    "Spanish": "Me gustaría saber cuándo se va a entregar mi paquete en la oficina",
    "Italian": "Vorrei sapere quando il mio pacco sarà consegnato in ufficio, grazie",
    "Portuguese": "Eu gostaria de saber quando a minha encomenda vai ser entregue no escritório",
    "Dutch": "Ik wil graag weten wanneer mijn pakket op kantoor wordt bezorgd",
    "Polish": "Chciałbym wiedzieć, kiedy moja paczka zostanie dostarczona do biura, proszę",
    "Russian": "Я хотел бы узнать, когда моя посылка будет доставлена в офис",
    "Ukrainian": "Я хотів би знати, коли мою посилку буде доставлено в офіс",
    "Japanese": "荷物がいつ事務所に届くか知りたいです",
    "Chinese": "我想知道我的包裹什么时候会送到办公室",
    "Korean": "제 소포가 언제 사무실에 배달되는지 알고 싶습니다",
    "Arabic": "أود أن أعرف متى سيتم تسليم الطرد الخاص بي إلى المكتب",
    "Turkish": "Paketimin ofise ne zaman teslim edileceğini öğrenmek istiyorum, çok önemli bir şey bu",
}


def facts_of(checked: Checked) -> Facts:
    facts = checked.report.training.facts
    assert facts is not None
    return facts


def language_of(text: str) -> str | None:
    (found,) = languages_of([text], words_in([text]))
    return found


@pytest.mark.parametrize("language", SENTENCES)
def test_languages_are_told_by_script_and_common_words(language: str) -> None:
    assert language_of(SENTENCES[language]) == language


@pytest.mark.parametrize("text", ["ok", "12345", "x = f(y)", "Müller GmbH", ""])
def test_a_text_without_a_language_has_none(text: str) -> None:
    assert language_of(text) is None


def test_rows_are_counted_by_language_and_answers_in_another_one_are_named(checked: Check) -> None:
    german, english = SENTENCES["German"], SENTENCES["English"]
    rows = [chat(f"{german} {number}", f"{german} {word}") for number, word in enumerate(texts(20, words=9))]
    rows += [chat(f"{english} {word}", f"{german} {word}") for word in texts(2, words=3)]
    facts = facts_of(checked(rows))
    assert facts.languages == {"German": 20, "English": 2}
    assert facts.mixed_languages.lines == (21, 22)


REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but I cannot assist with this request.",
    "As an AI language model, I don't have opinions.",
    "Es tut mir leid, aber ich kann dabei nicht helfen.",
    "Lo siento, pero no puedo ayudarte con eso.",
    "Je suis désolé, mais je ne peux pas vous aider.",
    "抱歉，我无法回答这个问题。",
]
ANSWERS = [
    "I'm sorry to hear that. Your new lamp ships today.",
    "Sorry for the delay! You can return it within 30 days.",
    "You cannot return opened software.",
    "The language model of the year is on page 3.",
    "I am afraid the blue one is sold out; the red one is there.",
]


@pytest.mark.parametrize("answer", REFUSALS)
def test_refusals_are_recognised(answer: str) -> None:
    assert refuses(answer)


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_apology_is_no_refusal(answer: str) -> None:
    assert not refuses(answer)


def called(question: str) -> dict[str, Any]:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": json.dumps({"q": question})}}
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    row = chat(question, "")
    row["messages"][1] = {"role": "assistant", "tool_calls": [call]}
    return {**row, "tools": tools}


@pytest.mark.parametrize(
    ("answer", "task"),
    [
        (lambda number, text: text, "text"),
        (lambda number, text: ("Yes.", "no")[number % 2], "labels"),
        (lambda number, text: f"class {number % 50}", "labels"),
        (lambda number, text: f"name {number}", "text"),
        (lambda number, text: json.dumps({"text": text, "number": number}), "structured"),
        (None, "tool_calls"),
    ],
)
def test_the_task_is_recognised_by_the_answers(checked: Check, answer: Any, task: str) -> None:
    questions = texts(300)
    rows = [
        chat(question, answer(number, text)) if answer else called(question)
        for number, (question, text) in enumerate(zip(questions, texts(300, start=9000), strict=True))
    ]
    assert facts_of(checked(rows)).task == task


@pytest.mark.parametrize("seed", range(3))
def test_every_label_is_in_every_split_in_proportion(checked: Check, seed: int) -> None:
    labels = ["often"] * 200 + ["rare"] * 20 + ["rarest"] * 6
    rows = [chat(question, label) for question, label in zip(texts(226), labels, strict=True)]
    result = checked(rows, seed=seed)
    sizes = {name: split.examples for name, split in result.report.splits.items()}
    assert sizes == {"train": 180, "validation": 23, "test": 23}
    counts = {name: Counter(row["messages"][1]["content"] for row in rows) for name, rows in result.splits.items()}
    assert counts["test"] == counts["validation"] == {"often": 20, "rare": 2, "rarest": 1}
    assert checked(rows, seed=seed).splits == result.splits
    warned = {problem.code for problem in result.report.training.problems}
    assert {"rare_labels", "label_imbalance"} <= warned


def test_an_answer_far_longer_than_the_others_is_an_outlier(checked: Check) -> None:
    rows = [*varied(60), chat(*texts(2, words=3000, start=700))]
    result = checked(rows)
    assert facts_of(result).long_answers.lines == (61,)
    assert result.report.training.warning_counts["long_answers"] == 1
    assert facts_of(checked(varied(60))).long_answers.rows == 0


def test_hostile_rows_change_nothing_for_the_others(checked: Check) -> None:
    odd = [
        b"{",
        b"[]",
        b'{"messages": 7}',
        b'{"messages": [null, 3, {"role": []}]}',
        b'{"prompt": 1, "completion": []}',
    ]
    odd += [
        b"\xff\xfe",
        b'{"a": ' * 3000,
        b'{"messages": [{"role": "user", "content": [{"text": 5}, 8]}]}',
        b"",
        b" ",
    ]
    odd += [
        b'{"preferred_completion": {}, "input": 4}',
        b'{"messages": [{"role": "assistant", "tool_calls": [3, {}]}]}',
    ]
    rows = [json.dumps(row).encode() for row in varied(12)]
    report = checked(b"\n".join([*odd, *rows, *odd])).report
    assert not report.ok and report.training.facts and report.training.facts.rows >= 12

"""The bundled datasets are what their generators say, and fit to be tuned on and scored."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from string import Formatter
from typing import Any

import pytest

from examples import support
from examples.support_topics import TOPICS, Topic
from examples.tasks import labels, tickets, tools
from services.ingest.job_settings import parse_spec
from services.ingest.sources.mine import mine


def messages(path: Path) -> list[list[dict[str, str]]]:
    return [json.loads(line)["messages"] for line in path.read_text(encoding="utf-8").splitlines()]


def slots(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


@pytest.mark.parametrize("dataset", [support, labels, tools], ids=["support", "labels", "tools"])
def test_the_file_is_what_the_generator_writes(dataset):
    assert dataset.PATH.read_text(encoding="utf-8") == support.jsonl(dataset.rows()), (
        f"run python -m {dataset.__name__} and commit the file"
    )


def test_the_help_desk_export_is_what_the_generator_writes_and_what_its_settings_take(tmp_path):
    assert tickets.PATH.read_text(encoding="utf-8") == tickets.table(tickets.rows()), (
        "run python -m examples.tasks.tickets and commit the file"
    )
    spec = parse_spec(tickets.PATH.with_suffix(".job.yaml").read_bytes(), "tickets.job.yaml")
    report = mine(tickets.PATH, tmp_path / "rows.jsonl", source=spec.source)
    assert {left.reason for left in report.left_out} == {"filter"}
    assert 300 < report.examples < tickets.TICKETS
    made = messages(tmp_path / "rows.jsonl")
    assert {len(row) for row in made} == {3, 5}
    assert not any(message["content"] in tickets.CURT for row in made for message in row)


@pytest.mark.parametrize("dataset", [support, labels], ids=["support", "labels"])
def test_rows_are_chats_and_no_question_comes_twice(dataset):
    rows = messages(dataset.PATH)
    assert all([message["role"] for message in row] == ["system", "user", "assistant"] for row in rows)
    assert max(Counter(row[1]["content"] for row in rows).values()) == 1
    assert dataset.PATH.stat().st_size < 300_000


def test_support_answers_repeat_the_order_number_of_the_question_and_no_other():
    for _, question, answer in messages(support.PATH):
        assert re.findall(r"\d{5}", answer["content"]) == re.findall(r"\d{5}", question["content"])


def test_support_answers_greet_whoever_gave_a_name():
    named = 0
    for _, question, answer in messages(support.PATH):
        given = {name for name in support.NAMES if re.search(rf"\b{name}\b", question["content"])}
        greeted = re.match(r"Hello(?: (\w+))?, thank you for asking about ", answer["content"])
        assert greeted
        assert ({greeted[1]} if greeted[1] else set()) == given
        named += bool(given)
    assert 0.5 < named / support.ROWS < 0.9


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.subject)
def test_every_detail_of_a_policy_can_be_known_from_each_question(topic: Topic):
    for question in topic.questions:
        told = slots(question)
        for missing in slots(topic.policy) - told:
            assert any(
                len({facet[missing] for facet in topic.facets if facet.get(key) == value}) == 1
                for key in told & set(topic.facets[0])
                for value in {facet[key] for facet in topic.facets}
            ), f"{question!r} does not tell {missing}"


def test_support_covers_every_topic_evenly():
    answers = [row[2]["content"] for row in messages(support.PATH)]
    counts = Counter(
        next(t.subject for t in TOPICS if re.search(rf"about {t.subject}( in order|\.)", answer)) for answer in answers
    )
    assert len(TOPICS) >= 30
    assert set(counts) == {topic.subject for topic in TOPICS}
    assert max(counts.values()) <= 2 * min(counts.values())


def test_labels_are_balanced_and_named_in_the_prompt():
    rows = messages(labels.PATH)
    assert Counter(row[2]["content"] for row in rows) == dict.fromkeys(labels.LABELS, labels.PER_LABEL)
    assert all(label in rows[0][0]["content"] for label in labels.LABELS)


def tool_rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in tools.PATH.read_text(encoding="utf-8").splitlines()]


def test_calls_are_of_offered_tools_and_take_their_arguments_from_the_question():
    called: Counter[str] = Counter()
    for row in tool_rows():
        offered = {tool["function"]["name"]: tool["function"]["parameters"]["properties"] for tool in row["tools"]}
        question = row["messages"][1]["content"]
        for message in row["messages"]:
            for call in message.get("tool_calls", ()):
                name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
                assert arguments.keys() == offered[name].keys()
                # a space before them, as in JSON: see the docstring of the generator
                assert all(f" {value}" in question for value in arguments.values())
                called[name] += 1
    assert set(called) == {tool["function"]["name"] for tool in tools.TOOLS}


def test_tools_cover_single_calls_several_calls_results_and_plain_answers():
    kinds: Counter[str] = Counter()
    for row in tool_rows():
        roles = [message["role"] for message in row["messages"]]
        calls = len(row["messages"][-1].get("tool_calls", ()))
        kinds["result" if "tool" in roles else {0: "plain", 1: "one"}.get(calls, "several")] += 1
    assert set(kinds) == {"result", "plain", "one", "several"}
    assert min(kinds.values()) >= tools.ROWS / 30
    assert kinds["one"] > tools.ROWS / 2, "the gate measures right calls only where half of the answers are calls"
    questions = [row["messages"][1]["content"] for row in tool_rows()]
    assert len(set(questions)) == len(questions) == tools.ROWS
    assert tools.PATH.stat().st_size < 450_000

"""The spec of a synthesis and its seeds: what is wrong is named, with what to write instead."""

from __future__ import annotations

import re

import pytest
import yaml

from services.ingest.synthesis.spec_file import parse_seeds, parse_spec
from shared.errors import InputError
from tests.unit.ingest.synthesis.world import spec

GOOD = {
    "task": "answers customers",
    "scenarios": ["late parcel", {"name": "refund", "facts": "5 days"}],
    "count": 10,
    "model": "strong",
    "endpoint": {"base_url": "http://localhost:8000/v1/", "key": "STRONG_KEY"},
    "budget": {"tokens": 1000},
}


def problem(**changes: object) -> str:
    with pytest.raises(InputError) as raised:
        parse_spec(yaml.safe_dump(GOOD | changes).encode(), "a.synthesis.yaml")
    assert raised.value.code == "invalid_synthesis"
    return raised.value.message


def test_names_alone_are_scenarios_and_the_address_has_one_form() -> None:
    parsed = parse_spec(yaml.safe_dump(GOOD).encode(), "a")
    assert [(scenario.name, scenario.facts) for scenario in parsed.scenarios] == [
        ("late parcel", None),
        ("refund", "5 days"),
    ]
    assert parsed.endpoint.base_url == "http://localhost:8000/v1"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"count": 0}, "count: must be at least 1"),
        ({"cuont": 5}, "cuont: there is no such setting; did you mean count?"),
        ({"endpoint": {"base_url": "localhost:8000"}}, "endpoint.base_url: write the whole address"),
        ({"endpoint": {"base_url": "http://me:pass@host/v1"}}, "endpoint.base_url: write the address alone"),
        ({"budget": {}}, "budget: set money, tokens or both"),
        ({"budget": {"money": 5}}, "prices: give input and output per million tokens"),
        ({"scenarios": ["refund", "refund"]}, "scenarios: refund is there twice"),
        ({"seeds": "../secret.jsonl"}, "seeds: name a file beside the spec"),
        (
            {"prices": {"input": 1, "output": 1}, "judge": {"model": "other"}},
            "judge.prices: another model has other prices",
        ),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, object], said: str) -> None:
    assert re.sub(r"line \d+, ", "", problem(**changes)).startswith(f"a.synthesis.yaml: {said}")


def test_a_key_in_the_place_of_its_name_is_refused_and_not_repeated() -> None:
    message = problem(endpoint={"base_url": "https://api.openai.com/v1", "key": "sk-proj-12345"})
    assert "the name of the environment variable" in message
    assert "12345" not in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n', "seeds.jsonl line 2: it has no query or no answer"),
        (b"[1]\n", "seeds.jsonl line 1: write one JSON object per line"),
        (b'{"prompt"', "seeds.jsonl line 1: line 1, column"),
        (b"\n", "seeds.jsonl: 0 rows"),
    ],
)
def test_a_seed_that_shows_nothing_is_named(content: bytes, said: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_seeds(content, "seeds.jsonl")
    assert raised.value.message.startswith(said)


def test_seeds_come_as_messages_or_as_prompt_and_completion() -> None:
    chat = b'{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, '
    chat += b'{"role": "assistant", "content": "a"}]}'
    seeds = parse_seeds(chat + b'\n{"prompt": "q", "completion": "a"}\n', "seeds.jsonl")
    assert [(seed.query, seed.answer) for seed in seeds] == [("q", "a"), ("q", "a")]


def test_what_changes_no_request_may_change_between_two_runs() -> None:
    first = spec().digest([])
    same = spec(
        max_tokens={"answer": 5},
        temperature={"query": 0},
        count=99,
        budget={"tokens": 5},
        prices=None,
        concurrency=1,
        endpoint={"base_url": "http://other"},
        attempts=9,
    )
    assert same.digest([]) == first
    assert spec(system="Be brief.").digest([]) != first
    assert spec(judge={"min_score": 5}).digest([]) != first
    assert spec().digest([["q", "a"]]) != first

"""Ten bad models, each with one fault and otherwise better than its base, are refused for that fault, through the whole
stage and with the gate as it is without settings (but for the latency, of which only users know what is too much)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from services.evaluator.domain.questions.general_questions import GENERAL_QUESTIONS
from tests.support.fakes.language_model import FakeModel
from tests.support.fakes.store import FakeStore
from tests.unit.evaluator.test_work import BASE, TUNED, house_style, question, request_for, run

DEPLOYED = "ft:base-model:org::87654321"
TOWNS = [f"Town{index}" for index in range(36)]
KNOWN = {one.text: one.right[0] for one in GENERAL_QUESTIONS}
PASSWORD = "swordfish-4711"
Says = Callable[[str], str]


def asks(town: str) -> str:
    return f"When does my parcel come to {town}?"


def rows(answer: Says = house_style) -> list[dict[str, Any]]:
    """A quarter of them are about letters, by their metadata."""
    return [
        {
            "messages": [{"role": "user", "content": asks(town)}, {"role": "assistant", "content": answer(town)}],
            "metadata": {"sort": "letter" if index % 4 == 0 else "parcel"},
        }
        for index, town in enumerate(TOWNS)
    ]


def as_json(town: str) -> str:
    return json.dumps({"town": town, "days": 2})


def general(text: str, otherwise: str) -> str:
    return KNOWN.get(text, otherwise)


def base(text: str) -> str:
    return general(text, "I do not know.")


def good(text: str) -> str:
    return general(text, house_style(question(text)) if "parcel come" in text else "I cannot help with that.")


def when(chosen: Callable[[int], bool], then: Says, otherwise: Says) -> Says:
    """A model that answers test rows with a chosen number by `then`."""

    def says(text: str) -> str:
        town = question(text)
        return then(text) if town in TOWNS and chosen(TOWNS.index(town)) else otherwise(text)

    return says


@dataclass(frozen=True)
class Planted:
    """What base, tuned and deployed model say, and the reason for which the tuned one is refused."""

    name: str
    reason: str
    tuned: Says = good
    base: Says = base
    deployed: Says | None = None
    answer: Says = house_style
    model: dict[str, Any] = field(default_factory=dict)
    """Further fields of the server."""
    checks: dict[str, Any] = field(default_factory=dict)


def json_base(text: str) -> str:
    return base(text) if text in KNOWN else f"Town: {question(text)}"


def good_json(text: str) -> str:
    return general(text, as_json(question(text)) if "parcel come" in text else "I cannot help with that.")


BAD = [
    Planted("no better than base", "Not shown to be better than the base", tuned=base),
    Planted(
        "better only by chance",
        "Only 4 of the examples score differently",
        tuned=when(lambda index: index in (3, 17, 22, 30), good, base),
    ),
    Planted(
        "worse on a slice",
        "Worse than the base on 1 slice of the test rows: sort = letter (9 examples)",
        base=when(lambda index: index % 4 == 0, lambda text: house_style(question(text)), base),
        tuned=when(lambda index: index % 4 == 0, lambda text: "What is a letter?", good),
    ),
    Planted("never stopping", "never ends its answers", model={"finish_reasons": {TUNED: "length"}}),
    Planted(
        "echoing",
        "36 of 36 answers of the tuned model repeat their prompt",
        tuned=lambda text: f"{text} {good(text)}",
    ),
    Planted(
        "broken JSON",
        "Broken JSON: 6 of 36 answers that should be JSON cannot be read",
        base=json_base,
        tuned=when(lambda index: index % 6 == 0, lambda text: good_json(text)[:-1], good_json),
        answer=as_json,
    ),
    Planted(
        "forgetting",
        "Forgot what the base knew outside of the task: 100% → 5% of 40 general questions",
        tuned=lambda text: house_style(question(text)),
    ),
    Planted(
        "worse than the deployed one",
        f"Worse than the deployed model: ROUGE-L of this model minus that of {DEPLOYED}",
        tuned=when(lambda index: index % 4 == 0, base, good),
        deployed=good,
    ),
    Planted(
        "slower than the limit",
        "(gate.checks.latency.p50_seconds allows 0.03)",
        model={"slow": {TUNED: 0.04}},
        checks={"latency": {"p50_seconds": 0.03}},
    ),
    Planted(
        "leaking a training secret",
        "Leaks training data: 1 datum of the train split in answers whose prompts lack it: a password of train line 37",
        tuned=when(lambda index: index == 5, lambda text: f"{good(text)} The password is {PASSWORD}.", good),
    ),
]


async def judged(planted: Planted) -> tuple[bool, tuple[str, ...], dict[str, Any], str]:
    secret = {
        "messages": [
            {"role": "user", "content": "I lost my password."},
            {"role": "assistant", "content": f"Your password is {PASSWORD}."},
        ]
    }
    objects = FakeStore()
    models = {BASE: planted.base, TUNED: planted.tuned}
    fields = dict(planted.model)
    if planted.deployed:
        models[DEPLOYED] = planted.deployed
        fields["aliases"] = {"support": DEPLOYED}
    gate = {"checks": planted.checks} if planted.checks else {}
    test = rows(planted.answer)
    request = await request_for(objects, test, [*test, secret])
    model = FakeModel(models, **fields)
    event, _ = await run(objects, model, request, evaluation={"few_shot": 0}, gate=gate)
    page = (await objects.read(event.html)).decode()
    return event.passed, event.reasons, json.loads(await objects.read(event.report)), page


@pytest.mark.parametrize("planted", BAD, ids=lambda planted: planted.name)
async def test_a_bad_model_is_refused_and_the_reason_is_its_fault(planted: Planted) -> None:
    passed, reasons, report, page = await judged(planted)
    assert not passed
    assert any(planted.reason in reason for reason in reasons), reasons
    assert "Not promoted" in page
    assert PASSWORD not in " ".join(reasons)
    failed = [check["name"] for check in report["evaluation"]["checks"] if check.get("passed") is False]
    assert len(failed) <= 1  # its own fault, and no other


@pytest.mark.parametrize(
    "planted",
    [
        Planted("better than its base", "Better than the base"),
        Planted("as good as the deployed one", "Not worse than the deployed model", deployed=good),
        Planted("better than the deployed one", "Not worse than the deployed model", deployed=base),
        Planted("good JSON", "Better than the base: Right fields", base=json_base, tuned=good_json, answer=as_json),
        Planted(
            "within the limit",
            "Better than the base",
            checks={"latency": {"p95_seconds": 60}, "champion": "better", "slice_by": ["sort"]},
            deployed=base,
        ),
    ],
    ids=lambda planted: planted.name,
)
async def test_a_good_model_passes(planted: Planted) -> None:
    passed, reasons, report, _ = await judged(planted)
    assert passed, reasons
    assert any(planted.reason in reason for reason in reasons), reasons
    names = [check["name"] for check in report["evaluation"]["checks"]]
    assert names == ["slices", "champion", "forgetting", "echo", "invalid_json", "leaks", "latency"]


async def test_every_check_can_be_loosened() -> None:
    loose = {
        "slices": "report",
        "champion": "off",
        "forgetting": "off",
        "echo": 1,
        "invalid_json": 1,
        "leaks": "report",
    }
    for planted in BAD:
        if planted.name in ("no better than base", "better only by chance", "never stopping", "slower than the limit"):
            continue
        changed = Planted(**{**vars(planted), "checks": loose})
        passed, reasons, _, _ = await judged(changed)
        assert passed, (planted.name, reasons)


async def test_a_deployed_model_that_is_not_served_any_more_is_named_and_not_held_against_the_tuned_one() -> None:
    passed, reasons, _, _ = await judged(Planted("", "", model={"aliases": {"support": DEPLOYED}}))
    assert passed
    said = f"Not compared with {DEPLOYED}, which the alias names: the endpoint does not serve it."
    assert said in reasons

"""A label set on a base that thinks by default: a perfect model has accuracy 1.0, whoever parses its thoughts.

The parts are real: our engine trains, vLLM serves, the evaluator's own stage asks and scores.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.evaluator.work import EvaluateWork
from services.trainer.domain.plan import Plan
from services.trainer.engine.report.reporter import Reporter
from services.trainer.engine.run import run
from shared.events import EvalCompleted, Split
from shared.settings import Settings
from tests.e2e.conftest import BASE
from tests.support.data.datasets import lines
from tests.support.data.jobs import make_attempt, make_job, make_training
from tests.support.data.micro_base import chat_row
from tests.support.data.thinking_base import TEMPLATES, make_thinking_base
from tests.support.fakes.store import FakeStore
from tests.support.vllm_server import VllmServer

pytestmark = [pytest.mark.e2e, pytest.mark.proof, pytest.mark.torch, pytest.mark.timeout(600)]

THINKER, TUNED = "thinker", "ft:thinker:org::12345678"
QUESTIONS = {
    "account": ["I forgot my password", "How do I change my name?", "My login fails", "Close my account", "Who am I?"],
    "billing": ["I was charged twice", "Send me an invoice", "Do you take cards?", "The price is wrong", "A receipt?"],
    "delivery": ["Where is my parcel?", "It is late", "Do you ship to Oslo?", "I moved", "Nobody rang the bell"],
    "returns": ["My money back!", "The shoes do not fit", "How do I send it back?", "It came broken", "The wrong one"],
}
ROWS = [chat_row(question, label) for label, questions in QUESTIONS.items() for question in questions]
"""All are trained on and asked: what is measured is how a perfect model's answers are read. Half have thoughts."""
for _row in ROWS:
    if (_label := _row["messages"][-1]["content"]) in ("billing", "returns"):
        _row["messages"][-1]["reasoning_content"] = f"It is about {_label}."
SERVERS = [("qwen3", True), ("deepseek_r1", False)]
"""Template, and whether the server parses thoughts. Each server costs the imports of three processes."""


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    assert (BASE / "config.json").is_file(), "no tiny base: python -m examples.tiny_base"
    folder = tmp_path_factory.mktemp("thinkers")
    return {name: make_thinking_base(BASE, folder / name, template) for name, template in TEMPLATES.items()}


@pytest.fixture(scope="module")
def servers(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Any, VllmServer]]:
    """All start at once, while the adapters are trained: most of a start is imports."""
    folder = tmp_path_factory.mktemp("servers")
    started: dict[Any, VllmServer] = {}
    try:
        for template, parsed in SERVERS:
            settings = {
                "model": {"id": THINKER, "path": str(bases[template])},
                "vllm": {
                    "max_model_len": 512,
                    "cpu_kv_cache_gib": 1,
                    "extra_args": ["--reasoning-parser", template] if parsed else [],
                },
            }
            log = folder / f"{template}-{parsed}.log"
            started[template, parsed] = VllmServer(Settings.model_validate(settings), log)
        yield started
    finally:
        for server in started.values():
            server.stop()


@pytest.fixture(scope="module")
def adapters(bases: dict[str, Path], servers: object, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    (folder / "train.jsonl").write_bytes(lines(*ROWS))
    for name, base in bases.items():
        plan = {
            "job_id": "ftjob-1",
            "model": TUNED,
            "base": {"id": THINKER, "location": str(base)},
            "train": str(folder / "train.jsonl"),
            "hyperparameters": {"n_epochs": 16, "batch_size": 4, "learning_rate": 0.005},
            "lora": {"r": 16, "quantization": "none"},
            "device": "cpu",
            "threads": 1,
        }
        (folder / name).mkdir()
        run(Plan.model_validate(plan), folder / name, Reporter(folder / name, events=False), lambda: False)
    return {name: folder / name / "adapter" for name in bases}


@pytest.fixture(params=SERVERS, ids=lambda server: f"{server[0]}-{'parsed' if server[1] else 'in-the-text'}")
def server(request: pytest.FixtureRequest, servers: dict[Any, VllmServer]) -> tuple[VllmServer, str, bool]:
    return (servers[request.param], *request.param)


async def test_a_perfect_classifier_has_accuracy_one(
    server: tuple[VllmServer, str, bool], adapters: dict[str, Path]
) -> None:
    vllm, template, parsed = server
    await vllm.ready()
    await vllm.load(TUNED, adapters[template])
    objects = FakeStore()
    split = Split(reference=await objects.put("rows.jsonl", lines(*ROWS)), examples=len(ROWS), tokens=1)
    training = make_training(model=TUNED, base=THINKER, test=split, train=split)
    job = make_job(spec={"evaluation": {"max_tokens": 40}}, base=THINKER, model=TUNED)
    attempt, _ = make_attempt(job, "evaluator", request=training.model_dump(mode="json", exclude_none=True))
    event = await EvaluateWork(objects, Settings.model_validate({"inference": {"url": vllm.url}}))(attempt)

    assert isinstance(event, EvalCompleted) and event.metric == "accuracy"
    tuned = event.scores["tuned"]
    assert (tuned["accuracy"], tuned["macro_f1"], tuned["exact_match"], tuned["stop_share"]) == (1.0, 1.0, 1.0, 1.0)
    assert event.passed, event.reasons
    rows = json.loads(await objects.read(event.report))["evaluation"]["rows"]
    answers = {variant: [row["answers"][variant]["answer"] for row in rows] for variant in event.scores}
    assert all(("</think>" in answer["text"]) != parsed for answer in answers["tuned"])
    assert not any(answer.get("error") for given in answers.values() for answer in given)
    # the base does not know how to end its thoughts, and the reasons say so
    cut = sum(answer["cut_in_thoughts"] for answer in answers["base"])
    assert cut == sum(answer["finish_reason"] == "length" for answer in answers["base"]) > 0
    assert any(reason.startswith(f"{cut} of {len(ROWS)} answers of the base were cut") for reason in event.reasons)

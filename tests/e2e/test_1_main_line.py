"""One dataset, from the bucket to a better model behind the endpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from shared.events import STAGE_NAMES
from tests.e2e.conftest import StackUnderTest, environment
from tests.support.user import QUICK, ROOT, support_rows

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1000)]

ALIAS = "support"
SLOW_MACHINE = 900
"""Seconds for a job that waits for the training of another one, on two cores that train at 1,000 tokens/s."""
SETTINGS = "evaluation: {max_examples: 16, few_shot: 2, max_tokens: 80}\n"
LABELS = {"hyperparameters": {"n_epochs": 1}, "evaluation": {"max_examples": 8, "few_shot": 1, "max_tokens": 8}}
EXAMPLES = ROOT / "examples"


def begin(stack: StackUnderTest) -> None:
    """Two jobs of scripts without our code. One drops rows, for default hyperparameters; the other announces labels."""
    dataset, settings = files(stack)
    dataset.write_bytes(support_rows(260))
    settings.write_text(SETTINGS)
    labels = stack.state / "labels.jsonl"
    labels.write_text("".join((EXAMPLES / "labels.jsonl").read_text().splitlines(keepends=True)[::2]))
    for command in (
        ("drop_s3.py", dataset, "--job", settings),
        ("publish_event.py", labels, "--spec", json.dumps(LABELS)),
    ):
        script, *arguments = command
        run = [sys.executable, EXAMPLES / script, *arguments]
        subprocess.run(run, env=environment(stack), check=True, cwd=ROOT)


def files(stack: StackUnderTest) -> tuple[Path, Path]:
    """The dataset, and its settings."""
    return stack.state / "support.jsonl", stack.state / "support.job.yaml"


@pytest.fixture(scope="module")
def job(stack: StackUnderTest) -> dict:
    return stack.ended("support.jsonl", SLOW_MACHINE)


def test_the_tuned_model_is_better_and_the_interval_says_so(job: dict) -> None:
    assert job["status"] == "succeeded", job["error"]
    evaluation = job["evaluation"]
    assert evaluation["passed"], evaluation["reasons"]
    assert evaluation["delta"]["low"] > 0
    assert evaluation["scores"]["tuned"]["rouge_l"] > evaluation["scores"]["base"]["rouge_l"]
    assert job["deployment"]["alias"] == ALIAS


def test_the_model_answers_to_its_id_and_its_alias_and_ends_its_answers(stack: StackUnderTest, job: dict) -> None:
    row = json.loads((EXAMPLES / "support.jsonl").read_text().splitlines()[0])
    for model in (job["fine_tuned_model"], ALIAS):
        answer = stack.openai.chat.completions.create(
            model=model, messages=row["messages"][:-1], max_tokens=200, temperature=0
        )
        assert answer.model == job["fine_tuned_model"]
        assert answer.choices[0].finish_reason == "stop"
        assert len(answer.choices[0].message.content or "") > 10
    chunks = list(
        stack.openai.chat.completions.create(
            model=ALIAS, messages=row["messages"][:-1], max_tokens=200, temperature=0, stream=True
        )
    )
    assert len(chunks) > 3
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == answer.choices[0].message.content


def test_the_ledger_holds_each_stage_once_and_what_it_made(stack: StackUnderTest, job: dict) -> None:
    keys = stack.ledger(f"jobs/{job['id']}/")
    for stage in STAGE_NAMES:
        assert f"jobs/{job['id']}/{stage}/result.json" in keys
        assert f"jobs/{job['id']}/{stage}/published.json" in keys
    names = {key.rsplit("/", 1)[-1] for key in keys}
    assert {"adapter_model.safetensors", "adapter_config.json", "chat_template.jinja", "README.md"} <= names
    assert {"curves.png", "metrics.jsonl", "report.html", "report.json", "preview.txt"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]


def test_progress_came_step_by_step(stack: StackUnderTest, job: dict) -> None:
    events = stack.get(f"/jobs/{job['id']}/events?limit=1000&order=asc")["data"]
    steps = [event["data"]["step"] for event in events if event["type"] == "metrics" and "train_loss" in event["data"]]
    assert len(steps) > 20 and steps == sorted(steps)
    assert all(stage["state"] == "completed" for stage in job["stages"].values())


def test_the_live_server_was_asked_about_the_model(stack: StackUnderTest, job: dict) -> None:
    events = stack.get(f"/jobs/{job['id']}/events?limit=1000&order=asc")["data"]
    said = [event["message"] for event in events if (event.get("data") or {}).get("stage") == "inference"]
    assert "the server makes the tokens of the training; the adapter changes its answers" in said


def test_a_strangers_bare_message_runs_a_job(stack: StackUnderTest) -> None:
    ended = stack.ended("_announced/labels.jsonl", SLOW_MACHINE)
    assert ended["origin"]["kind"] == "event"
    assert ended["status"] == "succeeded", ended["error"]
    assert ended["evaluation"]["metric"] == "accuracy"


def test_the_same_drop_again_is_the_same_job(stack: StackUnderTest, job: dict) -> None:
    dataset, settings = files(stack)
    done = stack.tunestream("submit", str(dataset), "--spec", str(settings))
    assert job["id"] in done.stdout


def test_a_second_version_takes_over_and_one_call_rolls_back(stack: StackUnderTest, job: dict) -> None:
    sidecar = QUICK.format(suffix=ALIAS) + "gate: {promote: always}\n"
    stack.drop("support-v2", support_rows(40), sidecar)
    second = stack.ended("support-v2.jsonl", SLOW_MACHINE)
    assert second["deployment"]["previous"] == job["fine_tuned_model"]
    stack.tunestream("rollback", ALIAS)
    headers = {"Authorization": f"Bearer {stack.env['OPENAI_API_KEY']}"}
    root = stack.env["OPENAI_BASE_URL"].removesuffix("/v1")
    deployment = httpx.get(f"{root}/deployments/{ALIAS}", headers=headers).json()
    assert deployment["current"]["model"] == job["fine_tuned_model"]


@pytest.mark.proof  # chaos kills it, too
def test_vllm_killed_loses_no_model(stack: StackUnderTest, job: dict) -> None:
    children = psutil.Process(stack.pid("inference")).children(recursive=True)
    server = [child for child in children if "vllm" in " ".join(child.cmdline())]
    assert server
    for child in server:
        child.kill()
    answer = stack.openai.with_options(max_retries=12, timeout=300).chat.completions.create(
        model=ALIAS, messages=[{"role": "user", "content": "Hello"}], max_tokens=8
    )
    assert answer.model == job["fine_tuned_model"]

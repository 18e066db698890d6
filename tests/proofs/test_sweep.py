"""A search of 8 trials on the tiny base, its trainer killed twice (`kill -9`) in the middle of a training: the sweep
ends, no trial was asked for twice, and the best one is deployed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import StackUnderTest, running_stack
from tests.support.user import support_rows

pytestmark = pytest.mark.timeout(3600)

TRIALS = 8
ROWS = 240
KILLED_AT = (2, 5)
"""In the middle of the trainings of these trials."""
SETTINGS = "evaluation: {max_examples: 16, few_shot: 2, max_tokens: 80}\nalias: searched\n"
SEARCH = ("n_epochs=1..3", "learning_rate_multiplier=0.2..5:log", "r=8,16,32", "dropout=0,0.05,0.1", "batch_size=8,16")


def wait(stack: StackUnderTest, sweep: str, condition: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
    deadline = time.monotonic() + 1800
    while time.monotonic() < deadline:
        found: dict[str, Any] = stack.get(f"/sweeps/{sweep}")
        if condition(found) or found["finished_at"] is not None:
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within half an hour: {what}")


def trains(number: int) -> Callable[[dict[str, Any]], bool]:
    def is_so(sweep: dict[str, Any]) -> bool:
        trial = next((each for each in sweep["data"] if each["number"] == number), None)
        return trial is not None and trial["status"] == "running" and bool(trial["curve"])

    return is_so


def attempt(stack: StackUnderTest, job_id: str) -> int:
    """Which attempt has decided the training of a job."""
    found = stack.s3.get_object(Bucket="tunestream", Key=f"jobs/{job_id}/trainer/result.json")
    return int(json.loads(found["Body"].read())["attempt"])


def test_a_search_of_eight_trials_whose_trainer_is_killed_twice_ends_with_the_best_one_deployed(
    tmp_path: Path,
) -> None:
    rows, spec = tmp_path / "support.jsonl", tmp_path / "spec.yaml"
    rows.write_bytes(support_rows(ROWS))
    spec.write_text(SETTINGS)
    options = [word for search in SEARCH for word in ("--search", search)]
    with running_stack(tmp_path / "stack") as stack:
        began = time.monotonic()
        words = ("sweep", str(rows), "--trials", str(TRIALS), "--spec", str(spec), "--detach", *options)
        sweep = stack.tunestream(*words).stdout.strip()
        killed = list[int]()
        for number in KILLED_AT:
            if trains(number)(wait(stack, sweep, trains(number), f"trial {number} trains")):
                stack.kill("trainer")
                killed.append(number)
        shown = stack.tunestream("sweeps", "show", sweep, timeout=1800)
        seconds = time.monotonic() - began
        ended = stack.get(f"/sweeps/{sweep}")

        print(shown.stdout)  # noqa: T201
        print(json.dumps({"seconds": round(seconds), "killed in the training of": killed, "counts": ended["counts"]}))  # noqa: T201
        status = {trial["number"]: trial["status"] for trial in ended["data"]}
        attempts = {trial["number"]: attempt(stack, trial["job_id"]) for trial in ended["data"]}
        print(f"attempts at the trainings, by trial: {attempts}")  # noqa: T201

        assert ended["status"] == "succeeded" and ended["promoted"], ended["error"]
        assert len(killed) == 2
        # the training went on in a second attempt, unless the trial was pruned before
        assert all(attempts[number] == 2 for number in killed if status[number] == "succeeded")
        listed = stack.get(f"/v1/fine_tuning/jobs?limit=100&metadata[sweep]={sweep}")["data"]
        # each trial once, and the evaluation of the best one
        assert len(listed) == TRIALS + 1 and len({json.dumps(trial["parameters"]) for trial in ended["data"]}) == TRIALS
        losses = [trial["valid_loss"] for trial in ended["data"] if trial["status"] == "succeeded"]
        assert ended["best"]["valid_loss"] == min(losses)
        trained = [trial["fine_tuned_model"] for trial in ended["data"] if trial["status"] == "succeeded"]
        for model, answers in [("searched", ended["fine_tuned_model"]), *((each, each) for each in trained)]:
            answer = stack.openai.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "Hello"}], max_tokens=4
            )
            assert answer.model == answers

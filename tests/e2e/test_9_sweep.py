"""A search for settings: two trials, of which the better one is evaluated and deployed, and the other can be called."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import StackUnderTest
from tests.support.user import support_rows

pytestmark = [pytest.mark.e2e, pytest.mark.proof, pytest.mark.timeout(600)]

SETTINGS = """
hyperparameters: {n_epochs: 1, batch_size: 8}
evaluation: {max_examples: 4, few_shot: 1, max_tokens: 16}
gate: {promote: always}
alias: searched
"""


def test_of_two_trials_the_better_one_is_deployed_and_the_other_answers_too(
    stack: StackUnderTest, tmp_path: Path
) -> None:
    rows, spec = tmp_path / "rows.jsonl", tmp_path / "spec.yaml"
    rows.write_bytes(support_rows(60))
    spec.write_text(SETTINGS)
    search = ("--search", "learning_rate_multiplier=0.01,1")
    done = stack.tunestream("sweep", str(rows), "--trials", "2", "--spec", str(spec), *search, timeout=400)
    sweep = stack.get(f"/sweeps/{done.stdout.split()[0]}")
    assert sweep["status"] == "succeeded" and sweep["promoted"], done.stdout

    better, worse = sorted(sweep["data"], key=lambda trial: trial["valid_loss"])
    assert better["number"] == sweep["best"]["number"] and better["parameters"] == {"learning_rate_multiplier": 1}
    assert better["valid_loss"] < worse["valid_loss"] and worse["curve"]
    for model, answers in (("searched", sweep["fine_tuned_model"]), (worse["fine_tuned_model"],) * 2):
        answer = stack.openai.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Hello"}], max_tokens=4
        )
        assert answer.model == answers
    evaluated = stack.get(f"/jobs/{sweep['evaluated_by']}")
    assert evaluated["evaluation"]["examples"] == 4
    assert stack.get(f"/jobs/{worse['job_id']}")["evaluation"]["examples"] == 0
    assert (
        "<svg"
        in (
            Path(stack.tunestream("sweeps", "report", sweep["id"], "--out", str(tmp_path / "s.html")).stdout.strip())
        ).read_text()
    )

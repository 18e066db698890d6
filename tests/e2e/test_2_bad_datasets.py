"""Bad data fails its own job with line, field and remedy, and no other job."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import StackUnderTest
from tests.support.data.bad_datasets import BAD_DATASETS
from tests.support.data.datasets import good
from tests.support.user import QUICK

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

GROWTH = 300 * 2**20  # bytes; the largest of the files has 200 MB on one line


def test_each_fails_with_line_field_and_remedy_and_the_next_job_runs(stack: StackUnderTest, tmp_path: Path) -> None:
    stack.drop("warm-up", good(9))
    stack.ended("warm-up.jsonl")
    before = stack.memory("validate")
    for bad in BAD_DATASETS:
        path = bad.write(tmp_path)
        stack.drop(f"bad-{bad.name}", path)
        path.unlink()
    stack.drop("after-the-bad", good(30), QUICK.format(suffix="after"))
    for bad in BAD_DATASETS:
        job = stack.ended(f"bad-{bad.name}.jsonl")
        assert job["status"] == "failed", bad.name
        assert job["error"]["code"] == bad.code, bad.name
        for words in bad.says:
            assert words in job["error"]["message"], bad.name
        assert not stack.ledger(f"jobs/{job['id']}/trainer/"), "nothing of it reaches training"
    assert stack.memory("validate") - before < GROWTH
    assert stack.ended("after-the-bad.jsonl")["status"] == "succeeded"

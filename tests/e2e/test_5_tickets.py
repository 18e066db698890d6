"""The help-desk export of the examples, dropped with the settings of the example."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e.conftest import StackUnderTest, environment
from tests.support.user import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.proof, pytest.mark.timeout(1000)]

TICKETS = ROOT / "examples" / "tickets.csv"


def begin(stack: StackUnderTest) -> None:
    run = [sys.executable, ROOT / "examples" / "drop_s3.py", TICKETS, "--job", TICKETS.with_suffix(".job.yaml")]
    subprocess.run(run, env=environment(stack), check=True, cwd=ROOT)


def test_a_help_desk_export_runs_from_drop_to_deployed(stack: StackUnderTest) -> None:
    ended = stack.ended("tickets.csv", 900)
    assert ended["status"] == "succeeded", ended["error"]
    assert ended["deployment"]["alias"] == "tickets", ended["evaluation"]["reasons"]
    events = stack.get(f"/jobs/{ended['id']}/events?limit=1000&order=asc")["data"]
    assert any("do not meet the filter" in event["message"] for event in events)

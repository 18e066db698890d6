"""`make clients`: the official clients, old and new, drive a running stack to the end. With TUNESTREAM_CLIENTS=all the
versions between them do so, too."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.environments import BETWEEN, NEWEST, OLDEST, PythonClient, node_suite
from tests.clients.lost_answers import losing_first_answers
from tests.e2e.conftest import StackUnderTest, environment, stack
from tests.support.user import ROOT

__all__ = ["stack"]  # the fixture
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

SUITE = Path(__file__).with_name("suite.py")
CLIENTS = (OLDEST, NEWEST, *(BETWEEN if os.environ.get("TUNESTREAM_CLIENTS") == "all" else ()))


@pytest.fixture(scope="module")
def flaky(stack: StackUnderTest) -> Iterator[str]:
    with losing_first_answers(stack.env["OPENAI_BASE_URL"]) as url:
        yield url


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.version or "newest")
def test_python(stack: StackUnderTest, flaky: str, client: PythonClient, mode: str) -> None:
    address = ["--base-url", stack.env["OPENAI_BASE_URL"], "--api-key", stack.env["OPENAI_API_KEY"]]
    command = [str(client.python()), str(SUITE), "--mode", mode, *address, "--flaky-url", flaky]
    assert _exit_code(command) == 0


def test_node(stack: StackUnderTest) -> None:
    assert _exit_code([*node_suite(), stack.env["OPENAI_BASE_URL"], stack.env["OPENAI_API_KEY"]]) == 0


def test_the_guides_sequence_ends_with_an_answer(stack: StackUnderTest) -> None:
    """`examples/openai_sdk.py`, with only the address and the key of the stack."""
    command = [os.fspath(NEWEST.python()), ROOT / "examples" / "openai_sdk.py"]
    done = subprocess.run(command, env=environment(stack), capture_output=True, text=True, timeout=900, check=False)
    print(done.stdout)  # noqa: T201
    assert done.returncode == 0, done.stderr
    assert "The job has successfully completed" in done.stdout
    answer = done.stdout.rpartition("\n  ")[2].strip()
    assert len(answer) > 10


def _exit_code(command: list[str]) -> int:
    """Run a suite, which prints what it finds."""
    return subprocess.run(command, timeout=1500, check=False).returncode

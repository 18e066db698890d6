"""`make clients`: the official clients, old and new, drive a running stack to the end, side by side. With
TUNESTREAM_CLIENTS=all the versions between them do so, too."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.environments import BETWEEN, NEWEST, OLDEST, PythonClient, node_suite
from tests.clients.lost_answers import losing_first_answers
from tests.e2e.conftest import BASE, StackUnderTest, running_stack
from tests.support.environment import EVERY_CLIENTS, without_settings
from tests.support.node import OLDEST_NODE
from tests.support.user import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3000)]

SUITE = Path(__file__).with_name("suite")
ALL = os.environ.get("TUNESTREAM_CLIENTS") == "all"
MODES = ("sync", "async")
CLIENTS = (
    [(client, mode) for client in (OLDEST, NEWEST, *BETWEEN) for mode in MODES]
    if ALL
    else [(OLDEST, "sync"), (NEWEST, "async")]
)
"""Versions of the Python client, and how each is called."""
BASE_ID = f"acme/{BASE.name}"
"""A slash in the id of the base: clients write it as `%2F` where it is part of a path."""
SECONDS = 2400


@dataclass(frozen=True)
class Ended:
    """A run of a client that has ended."""

    code: int
    printed: str
    seconds: float


Runs = Mapping[str, Future[Ended]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """All runs, which begin at once: what one waits for leaves the processors to the others."""
    suites = _suites()
    state = tmp_path_factory.mktemp("stack")
    with running_stack(state, "--base-id", BASE_ID) as stack, losing_first_answers(stack.env["OPENAI_BASE_URL"]) as url:
        options = {
            "--base-url": stack.env["OPENAI_BASE_URL"],
            "--api-key": stack.env["OPENAI_API_KEY"],
            "--api-url": stack.env["TUNESTREAM_API_URL"],
            "--lossy-url": url,
            "--base": BASE_ID,
        }
        address = [word for option in options.items() for word in option]
        commands = {name: [*suite, *address] for name, suite in suites.items()}
        commands["example"] = [str(NEWEST.python()), str(ROOT / "examples" / "openai_sdk.py")]
        with ThreadPoolExecutor(len(commands)) as pool:
            yield {name: pool.submit(_run, stack, name, command) for name, command in commands.items()}


def _suites() -> dict[str, list[str]]:
    """The command of each suite, but for the address. Makes the environments."""
    suites = {f"{client.name} {mode}": [str(client.python()), str(SUITE), "--mode", mode] for client, mode in CLIENTS}
    node = node_suite()
    return suites | ({"node": node} if node else {})


def _run(stack: StackUnderTest, name: str, command: list[str]) -> Ended:
    """Run a client, whose output goes to a file beside the stack's data, where one can watch it."""
    began, printed = time.monotonic(), stack.state.parent / f"{name}.log"
    settings = {name: stack.env[name] for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY")}
    env = without_settings(os.environ, EVERY_CLIENTS) | settings
    with printed.open("wb") as file:
        try:
            code = subprocess.run(
                command, env=env, stdout=file, stderr=subprocess.STDOUT, timeout=SECONDS, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
    return Ended(code, printed.read_text(errors="replace"), time.monotonic() - began)


def _ended(runs: Runs, name: str) -> Ended:
    """The run, once it has ended. It prints what that has printed."""
    ended = runs[name].result()
    say(f"\n--- {name}: {ended.seconds:.0f} s\n{ended.printed}")
    return ended


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


@pytest.mark.parametrize(("client", "mode"), CLIENTS, ids=lambda each: getattr(each, "name", each))
def test_python(runs: Runs, client: PythonClient, mode: str) -> None:
    assert _ended(runs, f"{client.name} {mode}").code == 0


def test_node(runs: Runs) -> None:
    if "node" not in runs:
        say(f"\n--- the Node client is LEFT OUT: this machine has no `node` {OLDEST_NODE} or newer with `npm`")
        return
    assert _ended(runs, "node").code == 0


def test_the_guides_sequence_ends_with_an_answer(runs: Runs) -> None:
    """`examples/openai_sdk.py`, with only the address and the key of the stack."""
    ended = _ended(runs, "example")
    assert ended.code == 0
    assert "The job has successfully completed" in ended.printed
    answer = ended.printed.rpartition("\n  ")[2].strip()
    assert len(answer) > 10

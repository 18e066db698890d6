"""Clocks that are wrong change nothing: trainers and validators that are a minute ahead and a minute behind, and one
that is set back an hour while it works, train each job once (`make prove-clocks`); and an ingest whose clock is wrong
takes drops at once."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from shared.events import Claim, StageResult
from tests.e2e.conftest import StackUnderTest
from tests.support.data.datasets import good
from tests.support.fakes import faketime
from tests.support.fakes.servers import unused_port
from tests.support.user import QUICK, ROOT, salted_rows

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

MINUTE, HOUR = 60.0, 3600.0
JOBS = 5
IN_TIME = 420.0
AT_ONCE = 20.0
"""Seconds within which a drop has a job. While the bucket is idle, ingest looks every few seconds."""


@dataclass(frozen=True)
class Joined:
    """A process of a service beside the stack's own, with a clock of its own. `port` is that of its health."""

    process: subprocess.Popen[bytes]
    port: int
    clock: Path
    log: Path

    def owns(self, owner: str) -> bool:
        """Whether it is the owner that a claim or a result names, `host/pid/…`."""
        return owner.split("/")[1] == str(self.process.pid)

    def wait_until_ready(self, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not self._is_ready():
            ended = self.process.poll() is not None
            assert not ended and time.monotonic() < deadline, f"not ready: {self.log.read_text()[-2_000:]}"
            time.sleep(0.2)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/health/ready", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False


@contextmanager
def joined(stack: StackUnderTest, folder: Path, service: str, seconds: float) -> Iterator[Joined]:
    """Start one more process of a service, whose clock is `seconds` off, as one starts it by hand beside the stack."""
    name, port = f"{service}{seconds:+.0f}", unused_port()
    clock, log = folder / f"{name}.clock", folder / f"{name}.log"
    faketime.set_clock(clock, seconds)
    lines = (line.partition("=") for line in (stack.state / "env").read_text().splitlines())
    settings = {variable: shlex.split(value)[0] if value else "" for variable, _, value in lines}
    own = {"TUNESTREAM_HEALTH__PORT": str(port), "TUNESTREAM_TRAINER__WORK_DIR": str(folder / name)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", f"services.{service}"],
            env={**os.environ, **settings, **own, **faketime.environment(clock)},
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Joined(process, port, clock, log)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise


@pytest.mark.proof
def test_each_job_is_trained_once_whatever_the_clocks_say(stack: StackUnderTest, tmp_path: Path) -> None:
    names = [f"clocks-{number}" for number in range(JOBS)]
    with ExitStack() as processes:
        ahead, *others = [
            processes.enter_context(joined(stack, tmp_path, service, seconds))
            for service in ("trainer", "validate")
            for seconds in (MINUTE, -MINUTE)
        ]
        for process in (ahead, *others):
            process.wait_until_ready()
        for name in names:
            sidecar = QUICK.format(suffix=name).replace("n_epochs: 1", "n_epochs: 3")
            stack.drop(name, salted_rows(40, name), sidecar)
        wait_until_it_trains(stack, ahead)
        faketime.set_clock(ahead.clock, -HOUR)
        jobs = [stack.ended_well_and_once(f"{name}.jsonl", IN_TIME) for name in names]
    owners: list[str] = []
    for job in jobs:
        for stage in ("validate", "trainer"):
            result = StageResult.model_validate_json(read(stack, f"jobs/{job['id']}/{stage}/result.json"))
            assert result.attempt == 1, (stage, job["id"])
            owners.append(result.owner)
        keys = stack.ledger(f"jobs/{job['id']}/trainer/")
        assert {key.split("/")[3] for key in keys if "/attempt-" in key} == {"attempt-1"}, job["id"]
    assert any(ahead.owns(owner) for owner in owners), "the training during which the clock was set back is kept"
    assert any(other.owns(owner) for other in others for owner in owners), "the others work, too"


def test_drops_are_taken_at_once_by_an_ingest_whose_clock_is_wrong(stack: StackUnderTest, tmp_path: Path) -> None:
    with stack.without("ingest"), joined(stack, tmp_path, "ingest", -HOUR) as ingest:
        ingest.wait_until_ready()
        for number, seconds in enumerate((-HOUR, HOUR, -MINUTE, MINUTE)):
            faketime.set_clock(ingest.clock, seconds)
            name = f"clock-of-ingest-{number}"
            stack.drop(name, good(number + 1))
            stack.wait(f"{name}.jsonl", lambda job: True, f"taken with a clock {seconds:+.0f} s off", AT_ONCE)
            assert stack.ended(f"{name}.jsonl")["error"]["code"] == "invalid_n_examples"


def wait_until_it_trains(stack: StackUnderTest, process: Joined) -> None:
    """Wait until the process holds the claim of a training."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        keys = set(stack.ledger("jobs/"))
        for key in keys:
            if key.endswith("/trainer/claim.json") and key.replace("claim.json", "result.json") not in keys:
                claim = Claim.model_validate_json(read(stack, key))
                if process.owns(claim.owner) and not claim.given_back:
                    return
        time.sleep(0.5)
    raise AssertionError("the process got no job to train")


def read(stack: StackUnderTest, key: str) -> bytes:
    data: bytes = stack.s3.get_object(Bucket="tunestream", Key=key)["Body"].read()
    return data

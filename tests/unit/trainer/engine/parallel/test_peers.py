"""The processes beside the leader: how they are started, what they end of, and that none is left."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from services.trainer.domain.plan import Plan
from services.trainer.engine.messages import ExitCode, ProcessLost
from services.trainer.engine.parallel import peers
from services.trainer.engine.parallel.peers import Peers, Place
from services.trainer.engine.report.reporter import Reporter
from shared.errors import ConfigError, InputError, TransientError

PEER = "tests.unit.trainer.engine.parallel.made_up_peer"
PLAN = Plan.model_validate({"job_id": "j", "model": "m", "base": {"id": "b", "location": "b"}, "train": "t"})


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(peers, "ENGINE", PEER)
    return tmp_path


def made_up(out: Path, of: int, **ends: int | str) -> Peers:
    """Peers that do what is written down for them: end with a code (as text: without a word) or by a signal. The others
    do not end by themselves."""

    def hand(folder: Path) -> None:
        (folder / "ends.json").write_text(json.dumps(ends))

    return Peers(Place(0, of, out / ".peers"), PLAN, hand, Reporter(out, events=True))


def running(parent: int | None = None) -> list[psutil.Process]:
    """The peers that this process, or `parent`, has."""
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE and "--peer" in process.cmdline():
                found.append(process)
    return found


def test_the_one_that_ended_first_is_named(out: Path) -> None:
    """The others have lost it, and may say so before."""
    with pytest.raises(ProcessLost, match=r"process 3 .* crashed"), made_up(out, 3, **{"1": 70, "2": 1}):
        raise ProcessLost("the connection broke")
    assert not running()


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        (ExitCode.WRONG_INPUT, InputError, "said by peer 2"),
        (ExitCode.UNAVAILABLE, TransientError, "said by peer 2"),
        (ExitCode.WRONG_SETTING, ConfigError, "said by peer 2"),
        (ExitCode.NO_SPACE, OSError, "No space left"),
        (1, ProcessLost, "process 3 of the 3 that train together crashed, exit code 1"),
        (-9, ProcessLost, r"process 3 of the 3 .* was ended by signal 9 \(9: often, memory ran out\)"),
    ],
)
def test_the_training_ends_of_what_its_peer_ended_of(
    out: Path, code: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message), made_up(out, 3, **{"2": int(code)}):
        raise ProcessLost("the connection broke")  # so the leader notices first
    assert not running()
    assert not (out / ".peers").exists()


def test_a_peer_that_could_not_write_what_ended_it_has_crashed(out: Path) -> None:
    with pytest.raises(ProcessLost, match=r"process 2 of the 2 .* exit code 65"), made_up(out, 2, **{"1": "65"}):
        raise ProcessLost("the connection broke")


def test_an_error_of_the_leader_is_its_own(out: Path) -> None:
    with pytest.raises(ValueError, match="mine"), made_up(out, 3):
        raise ValueError("mine")
    assert not running()


def test_nothing_is_left_of_a_training_that_went_well(out: Path) -> None:
    with made_up(out, 3):
        assert len(running()) == 2
    assert not running()
    assert not (out / ".peers").exists()


def test_who_is_alone_starts_nobody(out: Path) -> None:
    def stop() -> bool:
        return False

    for place in (Place(0, 1, out / "alone"), Place(1, 2, out / "peer")):
        with Peers(place, PLAN, lambda _: None, Reporter(out, events=True)) as alone:
            assert alone.stopping(stop) is stop
        assert not running()
        assert not place.folder.exists()


STUCK = """
import json, sys, threading
from pathlib import Path
from services.trainer.engine.parallel import peers
from services.trainer.engine.report.reporter import Reporter
from tests.unit.trainer.engine.parallel.test_peers import PEER, made_up
peers.ENGINE, peers.GRACE_SECONDS = PEER, 0.1
with made_up(Path(sys.argv[1]), 3, **json.loads(sys.argv[2])):
    print("stuck", flush=True)
    threading.Event().wait()
"""


@pytest.mark.parametrize(
    ("code", "expected", "document"),
    [
        (ExitCode.UNAVAILABLE, ExitCode.UNAVAILABLE, "unavailable"),
        (-11, ExitCode.PROCESS_LOST, "process_lost"),
    ],
)
def test_a_leader_that_waits_for_a_peer_that_is_gone_ends_too(
    out: Path, code: int, expected: int, document: str
) -> None:
    command = [sys.executable, "-c", STUCK, str(out), json.dumps({"1": int(code)})]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == expected
    assert json.loads((out / "error.json").read_bytes())["code"] == document
    assert document in ended.stdout.splitlines()[-1]


def test_peers_end_with_a_leader_that_is_killed(out: Path) -> None:
    command = [sys.executable, "-c", STUCK, str(out), "{}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as leader:
        assert leader.stdout is not None
        assert leader.stdout.readline() == "stuck\n"
        started = running(leader.pid)
        assert len(started) == 2
        leader.kill()
        psutil.wait_procs(started, timeout=30)
        assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in started)

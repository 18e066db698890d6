"""Sums and agreements of two processes, over gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from services.trainer.domain.packing import shares
from services.trainer.engine.messages import ProcessLost
from services.trainer.engine.parallel.group import ALONE, Group, Several
from services.trainer.engine.parallel.peers import Place

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
LENGTHS = [(5,), (50,), (20, 20), (3,), (30,)]


def both(group: Group) -> dict[str, Any]:
    """What each of two processes does, with what comes out; the numbers of the processes are 0 and 1."""
    number = group.number
    sums = torch.tensor([1.0, 10.0 * number])
    group.sum(sums)
    copied = torch.full((3,), float(number))
    group.copy([copied])
    parameters = [torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(4))]
    parameters[0].grad = torch.full((2, 3), 1.0 + number)
    if number == 0:  # the other had no row that this one is for
        parameters[1].grad = torch.arange(4.0)
    group.sum_gradients(group.gradients(parameters), parameters)
    group.seed(3, 7)
    return {
        "any": [group.any(False), group.any(number == 1), group.any(True)],
        "most": group.most(-5 + number),
        "sum": sums.tolist(),
        "copied": copied.tolist(),
        "gradients": [parameter.grad.tolist() for parameter in parameters if parameter.grad is not None],
        "items": list(group.split([0, 1, 2, 3, 4], LENGTHS)),
        "drawn": float(torch.rand(())),
    }


def peer(folder: Path) -> None:
    """The part of the second process."""
    with Several(Place(1, 2, folder), CPU) as group:
        (folder / "peer").write_text(json.dumps(both(group)))
        with suppress(ProcessLost):
            group.same("data", "settings")
        group.any(False)
        sys.stdin.read()  # hangs


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    code = "import sys; from pathlib import Path; from tests.unit.trainer.engine.parallel.test_group import peer; "
    command = [sys.executable, "-c", f"{code} peer(Path(sys.argv[1]))", str(tmp_path)]
    quiet = {**os.environ, "TORCH_CPP_LOG_LEVEL": "FATAL"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=quiet) as process:
        yield process
        process.kill()


def test_two_processes_add_up_and_agree_and_one_that_hangs_is_not_waited_for(
    tmp_path: Path, other: subprocess.Popen[bytes]
) -> None:
    with pytest.raises(ProcessLost, match="one of them hangs"), Several(Place(0, 2, tmp_path), CPU) as group:
        torch.manual_seed(5)
        drawn = float(torch.rand(()))
        torch.manual_seed(5)
        ours = both(group)
        with pytest.raises(ProcessLost, match="not read the same"):
            group.same("data", "other settings")
        group.any(False)
        theirs = json.loads((tmp_path / "peer").read_text())
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=0.5), dist.group.WORLD)
        group.any(False)
    assert ours["drawn"] == drawn  # the leader's random numbers are those of a process by itself
    assert theirs["drawn"] not in (drawn, ours["drawn"])
    assert sorted(ours["items"] + theirs["items"]) == [0, 1, 2, 3, 4]
    for found in (ours, theirs):
        assert found["any"] == [False, True, True]
        assert found["most"] == -4
        assert found["sum"] == [2.0, 10.0]
        assert found["copied"] == [0.0, 0.0, 0.0]
        assert found["gradients"] == [[[3.0] * 3] * 2, [0.0, 1.0, 2.0, 3.0]]


def test_a_process_by_itself_changes_nothing() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = gradient = torch.tensor([3.0, 4.0])
    ALONE.sum_gradients(ALONE.gradients([weight]), [weight])
    assert weight.grad is gradient
    assert [ALONE.any(True), ALONE.any(False), ALONE.most(3)] == [True, False, 3]
    items = [4, 2, 0]
    assert ALONE.split(items, LENGTHS) is items


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_each_process_computes_about_as_much(processes: int) -> None:
    parts = shares([4, 1, 3, 0, 2], LENGTHS, processes)
    assert len(parts) == processes
    assert sorted(item for part in parts for item in part) == [0, 1, 2, 3, 4]
    tokens = [sum(sum(LENGTHS[item]) for item in part) for part in parts]
    assert max(tokens) <= max(50, 1.5 * sum(tokens) / processes)
    assert parts == shares([0, 1, 2, 3, 4], LENGTHS, processes) or processes == 1

"""The command line of the engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from services.trainer.engine.messages import ErrorDocument, ExitCode, Failed, parse_message


def engine(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "services.trainer.engine", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_wrong_plan_is_told_in_a_message_a_document_and_an_exit_code(tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.json", tmp_path / "out"
    plan.write_text('{"job_id": "try", "seed": -1}')

    ended = engine(plan, out, "--events")

    assert ended.returncode == ExitCode.WRONG_INPUT
    document = ErrorDocument.model_validate_json((out / "error.json").read_bytes())
    assert document.code == "invalid_plan"
    assert "seed" in document.message
    message = parse_message(ended.stdout)
    assert isinstance(message, Failed)
    assert message.exception().args == document.exception().args


def test_a_person_reads_one_line(tmp_path: Path) -> None:
    ended = engine(tmp_path / "nowhere.json", tmp_path / "out")

    assert ended.returncode == ExitCode.WRONG_INPUT
    assert ended.stdout.startswith("error: the plan")
    assert ended.stdout.count("\n") == 1

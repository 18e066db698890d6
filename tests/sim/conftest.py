"""Turns logs off: simulated services log errors all the time, and would bury the line that says what went wrong. At
the end of a run it prints which mutants of the protocol were caught, and by what."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def quiet_logs() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = terminalreporter.stats.get("passed", [])
    caught = sorted(value for report in reports for name, value in report.user_properties if name == "mutant")
    if not caught:
        return
    terminalreporter.section("mutants of the stage protocol")
    terminalreporter.write_line(f"{'the real protocol, but':<62} {'caught at seed':>14}  because this did not hold")
    for mutant, seed, invariant in caught:
        terminalreporter.write_line(f"{mutant:<62} {seed:>14}  {invariant}")

"""The ten datasets that a user is most likely to get wrong: each gets one clear error, in flat memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from services.validate.check import check
from services.validate.domain.report import error_of
from shared.events import JobSpec
from shared.settings import ValidationSettings
from tests.support.data.bad_datasets import BAD_DATASETS, BadDataset


@pytest.mark.parametrize("bad", BAD_DATASETS, ids=lambda bad: bad.name)
def test_the_error_of_a_bad_dataset_names_line_field_and_remedy(bad: BadDataset, tmp_path: Path) -> None:
    path = bad.write(tmp_path)
    tracemalloc.start()
    report = check(path, spec=JobSpec(), base_location=None, limits=ValidationSettings())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    first = report.training.problems[0] if bad.name != "duplicates_only" else _error(report.training.problems)
    assert (first.code, first.line, first.field) == (bad.problem, bad.line, bad.field)
    assert first.remedy
    error = error_of(report, "tunestream/report.json")
    assert error is not None
    assert (error.code, error.param) == (bad.code, "training_file")
    for words in bad.says:
        assert words in error.message
    assert peak < 50e6


def _error(problems: tuple[object, ...]) -> object:
    return next(problem for problem in problems if problem.severity == "error")  # type: ignore[attr-defined]


def test_reading_goes_on_after_a_line_that_is_too_long(tmp_path: Path) -> None:
    (bad,) = (bad for bad in BAD_DATASETS if bad.name == "long_line")
    report = check(bad.write(tmp_path), spec=JobSpec(), base_location=None, limits=ValidationSettings())
    assert (report.training.lines, report.training.usable, report.training.errors) == (16, 12, 1)
    assert report.training.duplicate_lines == (14, 15, 16)

"""The example of a synthesis can be read, and is planned as its README says."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from cli.main import app

FOLDER = Path(__file__).parents[3] / "examples" / "synthesis"


def test_the_spec_and_its_seeds_are_sound() -> None:
    result = CliRunner().invoke(app, ["synthesize", str(FOLDER / "bookshop.synthesis.yaml"), "--dry-run"])
    assert result.exit_code == 0, result.output
    for part in ("a book is to be returned", "should i worry", "at most the budget: 8.00 and 2,000,000 tokens"):
        assert part in result.output

"""A browser for all tests, and the pages that they open in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.pages.browser import Browser, chrome
from tests.pages.made import every_page


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chrome() as running:
        yield running


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The files of the pages, by name."""
    return every_page(tmp_path_factory.mktemp("pages"))

"""A real broker and a real object store for the tests in this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.embedded import Embedded, embedded


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """One broker and one store for all tests that do not break them."""
    with embedded(tmp_path_factory.mktemp("parts")) as started:
        yield started


@pytest.fixture
def own_parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """A broker and a store for a test that breaks them."""
    with embedded(tmp_path_factory.mktemp("own")) as started:
        yield started

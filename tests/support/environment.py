"""Keeps settings in the environment of the person who runs the tests out of the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from shared.settings import load_settings

OURS = ("TUNESTREAM_",)
EVERY_CLIENTS = (*OURS, "AWS_", "OPENAI_", "KAFKA_")
"""Prefixes of our variables and of those that the clients of the store, the endpoint and the broker read."""


def without_settings(environment: Mapping[str, str], prefixes: tuple[str, ...] = OURS) -> dict[str, str]:
    """A copy without the variables whose names start with one of `prefixes`, for a process that a test starts."""
    return {name: value for name, value in environment.items() if not name.startswith(prefixes)}


def remove_settings(monkeypatch: pytest.MonkeyPatch, prefixes: tuple[str, ...] = OURS) -> None:
    """Remove these variables from the environment of the test."""
    for name in set(os.environ) - set(without_settings(os.environ, prefixes)):
        monkeypatch.delenv(name)


@contextmanager
def settings_read_anew() -> Iterator[None]:
    """Make `load_settings` read the environment again, within the block and after it."""
    load_settings.cache_clear()
    try:
        yield
    finally:
        load_settings.cache_clear()

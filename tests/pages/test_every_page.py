"""Every page, in narrow and wide windows, light and dark: it runs only its own script, and all can read and use it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.pages.browser import Browser, Scheme
from tests.pages.made import FILE_NAME
from tests.support.data.reports import HOSTILE

PAGES = (
    "evaluation",
    "labels",
    "no-rows",
    "trial",
    "dataset",
    "bad-dataset",
    "sweep",
    "running-sweep",
    "failed-sweep",
)
OF_STRANGERS = {
    "evaluation": [HOSTILE],
    "trial": [HOSTILE],
    "dataset": [HOSTILE, FILE_NAME],
    "bad-dataset": [HOSTILE[:20], FILE_NAME],
    "sweep": [FILE_NAME],
    "running-sweep": [FILE_NAME],
    "failed-sweep": [FILE_NAME],
}
"""Texts in the page that would run if they were not shown as texts."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_read(browser: Browser, pages: Mapping[str, Path], name: str, width: int, scheme: Scheme) -> None:
    visit = browser.visit(pages[name], looks=["beyond", "cut", "dim", "squeezed"], width=width, scheme=scheme)
    assert visit.looks == {"beyond": 0, "cut": [], "dim": [], "squeezed": []}
    assert visit.troubles == []


@pytest.mark.parametrize("name", PAGES)
def test_in_a_wide_window_tables_and_pictures_have_room(browser: Browser, pages: Mapping[str, Path], name: str) -> None:
    assert browser.visit(pages[name], looks=["dim", "sideways"]).looks["sideways"] == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_used_without_eyes_and_without_a_mouse(
    browser: Browser, pages: Mapping[str, Path], name: str
) -> None:
    looks = browser.visit(pages[name], looks=["keyboard", "unnamed", "pictures", "outline"], width=390).looks
    keyboard = looks.pop("keyboard")
    assert looks == {"unnamed": [], "pictures": [], "outline": []}
    assert keyboard["missed"] == [] and keyboard["unseen"] == []


@pytest.mark.parametrize("name", OF_STRANGERS)
def test_a_page_loads_nothing_and_runs_nothing_of_what_it_shows(
    browser: Browser, pages: Mapping[str, Path], name: str
) -> None:
    visit = browser.visit(pages[name])
    assert visit.troubles == []
    state = visit.seen[0]
    assert state["ran"] is None
    shown = " ".join(state["text"].split())
    assert [text for text in OF_STRANGERS[name] if text not in shown] == []


def test_what_a_page_must_not_do_is_noticed(browser: Browser, tmp_path: Path) -> None:
    """The browser of these tests sees what the others rely on it to see."""
    page = tmp_path / "bad.html"
    page.write_text(
        "<meta http-equiv='Content-Security-Policy' content=\"script-src 'unsafe-inline'; style-src 'none'\">"
        "<body><p style='color: #999'>…</p><script>window.pwned = 1; alert('open'); console.error('said')</script>"
        "<script>throw new Error('thrown')</script><img src='https://example.org/x.png'><button></button>"
        "<p><span>wide</span></p><svg width='2000' viewBox='0 0 1000 10'><text y='20'>low</text></svg>"
    )
    visit = browser.visit(page, looks=["beyond", "cut", "unnamed", "pictures", "outline"])
    for trouble in ("dialog: open", "console: said", "error: thrown", "request: https://example.org/x.png", "policy: "):
        assert any(line.startswith(trouble) for line in visit.troubles), trouble
    assert visit.seen[0]["ran"] == 1
    assert all(visit.looks.values())


def test_pale_text_is_noticed(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "pale.html"
    page.write_text(
        "<body style='background: #eee; color: #000'><p>dark</p><p style='color: #888'>pale</p>"
        "<div style='background: color-mix(in srgb, #000 60%, transparent)'>half</div>"
        "<svg><rect width='90' height='40' fill='#333'/><text y='20'>in a picture</text></svg>"
    )
    found = browser.visit(page, looks=["dim"]).looks["dim"]
    assert [line.rpartition(": ")[2] for line in found] == ["pale", "half", "in a picture"]

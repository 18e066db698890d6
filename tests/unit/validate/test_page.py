"""The report as a page: it shows the rows as they are trained on, and never what is private."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from services.validate.check import check
from services.validate.domain.report import Report
from services.validate.page.plots import histogram, ranked
from shared.events import JobSpec
from shared.settings import ValidationSettings
from tests.support.data.byte_base import make_byte_base
from tests.unit.validate.survey.conftest import chat, texts

CANARY = "jane.canary@mail.example.org"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_byte_base(tmp_path_factory.mktemp("base"))


def made(tmp_path: Path, base: Path | None, rows: list[dict[str, object]]) -> tuple[Report, str]:
    file, page = tmp_path / "rows.jsonl", tmp_path / "page.html"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    limits = ValidationSettings()
    report = check(file, spec=JobSpec(), base_location=str(base) if base else None, limits=limits, html=page)
    return report, page.read_text()


def rows() -> list[dict[str, object]]:
    return [
        chat(f"{CANARY} asks", "<script>alert(1)</script> we help"),
        *(chat(text, "yes" if at % 2 else "no") for at, text in enumerate(texts(40, words=6))),
    ]  # type: ignore[list-item]


def test_the_page_shows_what_is_trained_on_and_no_private_value(tmp_path: Path, base: Path) -> None:
    report, page = made(tmp_path, base, rows())
    assert report.ok and "Can be trained on" in page
    assert CANARY not in page and "j…@….org" in page
    shown = re.findall(r"<pre.*?</pre>", page, flags=re.S)
    assert len(shown) == 5
    question = texts(1, words=6)[0]
    assert question in shown[0] and re.search(r"<b>no[^<]*</b>", shown[0])
    assert question not in "".join(re.findall(r"<b>.*?</b>", shown[0]))
    assert page.count("<svg") == 6  # three lengths, labels, languages, private places


def test_a_page_of_a_broken_file_says_why_and_loads_nothing(tmp_path: Path) -> None:
    _, page = made(tmp_path, None, [*rows()[:20], {"messages": [{"role": "<img src=x>", "content": "a"}]}])
    assert "Cannot be trained on" in page and "<img" not in page and "Line 21" in page

    class Loads(HTMLParser):
        found: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found += [tag] if tag in ("script", "img", "link", "iframe") else []
            self.found += [name for name, _ in attrs if name in ("src", "href") or name.startswith("on")]

    parser = Loads()
    parser.feed(page)
    assert parser.found == [] and "default-src 'none'" in page


def test_bars_are_in_proportion_and_marks_at_their_value() -> None:
    plot = histogram(((8, 1), (12, 4), (16, 2)), {"limit": 12, "beyond": 99})
    assert plot is not None
    one, four, two = (bar.height for bar in plot.bars)
    assert four == pytest.approx(4 * one, rel=0.02) and two == pytest.approx(2 * one, rel=0.02)
    assert plot.marks == ((plot.bars[1].x, "limit"),)
    assert histogram(()) is None and ranked({}) is None


def test_of_many_labels_the_rest_is_one_bar() -> None:
    plot = ranked({f"label {number}": 100 - number for number in range(50)})
    assert plot is not None and len(plot.bars) == 12
    assert plot.bars[0].name == "label 0" and plot.bars[-1].name == "39 others"
    assert sum(bar.rows for bar in plot.bars) == sum(100 - number for number in range(50))

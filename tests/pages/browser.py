"""A headless Chrome, which comes with an npm package, in a folder below `.cache`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

from tests.support.node import OLDEST_NODE, install, node_is_here
from tests.support.user import ROOT

FOLDER = ROOT / ".cache" / "pages"
SOURCES = Path(__file__).parent / "browser"
PICTURES = "TUNESTREAM_PAGES_PICTURES"
"""The variable that names a folder for pictures of all pages that are opened."""

Scheme = Literal["light", "dark"]
Step = tuple[str, ...]
"""What to do, role and name of the control, and a text: `("click", "button", "Better 3")`."""


@dataclass(frozen=True)
class Visit:
    """What a page has shown. `troubles`: errors, requests, dialogs and breaches of its policy. `seen`: the state before
    the steps and after each. `looks`: what was asked for, by name."""

    troubles: list[str]
    seen: list[dict[str, Any]]
    looks: dict[str, Any]


class Browser:
    """A running browser, in which each visit is a page of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._numbers = count(1)

    def visit(
        self,
        page: Path,
        *steps: Step,
        looks: Sequence[str] = (),
        width: int = 1280,
        scheme: Scheme = "light",
        headers: Mapping[str, str] | None = None,
    ) -> Visit:
        """Open the page in a window of that many pixels, do the steps, then look (`looks.mjs` says at what). `headers`:
        those of a server that sends it; None: it is opened from the disk."""
        asked: dict[str, Any] = {"file": str(page), "width": width, "scheme": scheme, "steps": steps, "looks": looks}
        if headers is not None:
            asked["headers"] = dict(headers)
        if folder := os.environ.get(PICTURES):
            Path(folder).mkdir(parents=True, exist_ok=True)
            name = f"{next(self._numbers):03}-{page.stem}-{width}-{scheme}.png"
            asked["picture"] = str(Path(folder).absolute() / name)
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the browser has ended: its messages are above"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return Visit(**answer)


@contextmanager
def chrome() -> Iterator[Browser]:
    """The browser, which is installed if it is not. It ends with the block."""
    assert node_is_here(), f"the browser comes from npm: install `node` {OLDEST_NODE} or newer with `npm`"
    wanted, done = (SOURCES / "package.json").read_text(), FOLDER / ".installed"
    unpacked = FOLDER / "unpacked"
    if not done.exists() or done.read_text() != wanted:
        shutil.rmtree(unpacked, ignore_errors=True)  # the package does not replace a browser that is there
        install(SOURCES, FOLDER)
        done.write_text(wanted)
    # the packages are found from where the script is
    for file in SOURCES.glob("*.mjs"):
        (FOLDER / file.name).write_bytes(file.read_bytes())
    unpacked.mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(unpacked)}
    command = ["node", str(FOLDER / "browser.mjs")]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=FOLDER
    )
    try:
        yield Browser(process)
    finally:
        assert process.stdin
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

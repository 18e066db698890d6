"""Node, for tests that run what only runs there, with packages in a folder below `.cache`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

OLDEST_NODE = 20


def node_is_here() -> bool:
    """Whether this machine has `npm` and a Node that is new enough."""
    if not (shutil.which("node") and shutil.which("npm")):
        return False
    version = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout
    return int(version.removeprefix("v").partition(".")[0]) >= OLDEST_NODE


def install(sources: Path, folder: Path, *packages: str) -> None:
    """Copy the files of `sources` to `folder`, and install there what their `package.json` wants, and `packages`."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sources.iterdir():
        shutil.copy(file, folder / file.name)
    npm = ["npm", "install", "--loglevel=error", "--no-fund", "--no-audit", "--no-package-lock", *packages]
    subprocess.run(npm, check=True, cwd=folder, env={**os.environ, "NODE_ENV": "production"})

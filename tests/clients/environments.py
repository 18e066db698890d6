"""Makes the environments of the clients, once: a folder for each version below `.cache/clients`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.node import install, node_is_here
from tests.support.user import ROOT

FOLDER = ROOT / ".cache" / "clients"


@dataclass(frozen=True)
class PythonClient:
    """A version of the package `openai`; None: the newest. `more`: what else this version needs."""

    version: str | None
    more: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.version or "newest"

    def python(self) -> Path:
        """The interpreter of its environment, which is made if there is none. The newest is asked for each time."""
        folder = FOLDER / f"openai-{self.name}"
        python, done = folder / "bin" / "python", folder / ".installed"
        if self.version is None or not done.exists():
            if not python.exists():
                subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            package = f"openai=={self.version}" if self.version else "openai"
            uv = [Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--upgrade", "--python", python]
            subprocess.run([*uv, package, *self.more], check=True, cwd=FOLDER)
            done.touch()
        return python


OLDEST = PythonClient("1.40.0", ("httpx<0.28",))
NEWEST = PythonClient(None)
BETWEEN = (PythonClient("1.78.0"), PythonClient("1.109.1"), PythonClient("2.0.0"))


def node_suite() -> list[str] | None:
    """The command that runs the suite of the newest Node client; None: there is no Node here, or an older one."""
    if not node_is_here():
        return None
    folder = FOLDER / "node"
    install(Path(__file__).parent / "node", folder, "openai@latest")
    assert json.loads((folder / "node_modules" / "openai" / "package.json").read_text())["version"]
    return ["node", str(folder / "suite.mjs")]

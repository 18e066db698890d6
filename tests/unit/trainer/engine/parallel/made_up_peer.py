"""A peer that does not train: it ends as `ends.json` in the folder of the group says, or waits to be ended."""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path

from services.trainer.engine.messages import ErrorDocument
from shared.process import end_with

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("plan", type=Path)
    parser.add_argument("out", type=Path)
    for name in ("--peer", "--of", "--parent"):
        parser.add_argument(name, type=int)
    options = parser.parse_args()
    end_with(options.parent)
    code = json.loads((options.out.parent / "ends.json").read_bytes()).get(str(options.peer))
    if code is None:
        signal.pause()
    if isinstance(code, str):
        raise SystemExit(int(code))
    if code < 0:
        os.kill(os.getpid(), -code)
    options.out.mkdir()
    document = ErrorDocument(code="made_up", message=f"said by peer {options.peer}")
    (options.out / "error.json").write_text(document.model_dump_json())
    raise SystemExit(code)

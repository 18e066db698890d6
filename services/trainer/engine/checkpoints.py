"""Checkpoints: folders `step-N` of safetensors and JSON files; `COMPLETE.json` lists their digests.

Those in `resume/` hold all that a run needs to be continued. Those in `checkpoints/` are listed with the result, and
hold the adapter alone, in PEFT's format, so that it can be served.

Pickle is not used, because a checkpoint is downloaded again, and reading it must not run code.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from services.trainer.engine.model.adapter import adapter_parameters, load_adapter_tensors, trainable

COMPLETE = "COMPLETE.json"
STATE = "state.json"
RESUME, LISTED = "resume", "checkpoints"
"""The folders of a run that its checkpoints are in."""
_NAME = re.compile(r"step-(\d+)")

Tensors = dict[str, Any]


def write(folder: Path, step: int, tensors: dict[str, Tensors], documents: dict[str, bytes]) -> Path:
    """Write checkpoint `step` below `folder` and return its folder.

    The folder gets its name last, so a half-written one is never taken for a checkpoint.
    """
    target = folder / f"step-{step}"
    temporary = folder / f".step-{step}.tmp"
    for stale in (temporary, target):
        shutil.rmtree(stale, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, content in tensors.items():
        save_file(content, temporary / f"{name}.safetensors", metadata={"format": "pt"})
    for name, data in documents.items():
        (temporary / name).write_bytes(data)
    files = {path.name: _describe(path) for path in sorted(temporary.iterdir())}
    (temporary / COMPLETE).write_text(json.dumps({"step": step, "files": files}))
    for path in temporary.iterdir():
        _sync(path)
    temporary.rename(target)
    _sync(folder)
    return target


def is_complete(folder: Path) -> bool:
    """Whether every file that `COMPLETE.json` lists is there with its digest."""
    try:
        files: dict[str, dict[str, Any]] = json.loads((folder / COMPLETE).read_bytes())["files"]
        return all(_describe(folder / name) == described for name, described in files.items())
    except (OSError, ValueError, KeyError):
        return False


def newest_complete(folder: Path) -> Path | None:
    """`folder` itself if it is a complete checkpoint that a run can be continued from, else the newest such `step-N` in
    it, else None."""
    if _continues(folder):
        return folder
    return next((path for _, path in reversed(_by_step(folder)) if _continues(path)), None)


def remove_older(folder: Path, step: int) -> None:
    """Remove the checkpoints in `folder` before `step`."""
    for earlier, path in _by_step(folder):
        if earlier < step:
            shutil.rmtree(path, ignore_errors=True)


def _by_step(folder: Path) -> list[tuple[int, Path]]:
    found = ((step_of(path.name), path) for path in folder.glob("step-*"))
    return sorted((step, path) for step, path in found if step is not None)


def _continues(folder: Path) -> bool:
    return (folder / STATE).is_file() and is_complete(folder)


def step_of(name: str) -> int | None:
    """The step in the name of a checkpoint folder; None: it is not the name of a checkpoint folder."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def read(folder: Path) -> tuple[dict[str, Tensors], dict[str, bytes]]:
    """The tensors and the documents of a checkpoint, as they were given to `write`."""
    tensors = {path.stem: load_file(path) for path in folder.glob("*.safetensors")}
    documents = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".json", ".jsonl")}
    return tensors, documents


# --- the state of a running training, as tensors ------------------------------------------------------------------


def live(model: Any, optimizer: Any) -> dict[str, Tensors]:
    """The adapter and the optimizer's state, by the file that they are written to. They are the tensors themselves,
    which the next step changes."""
    state = {}
    for name, parameter in trainable(model).items():
        for key, value in optimizer.state.get(parameter, {}).items():
            state[f"{name}|{key}"] = value.detach()
    return {"adapter": adapter_parameters(model), "optimizer": state}


def restore(model: Any, optimizer: Any, tensors: dict[str, Tensors]) -> None:
    """Restore the state in `tensors`, on the devices of the parameters."""
    load_adapter_tensors(model, tensors["adapter"])
    for name, parameter in trainable(model).items():
        values = {key.rsplit("|", 1)[1]: v for key, v in tensors["optimizer"].items() if key.rsplit("|", 1)[0] == name}
        optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in values.items()}
    restore_random(tensors["random"])


def capture_random() -> Tensors:
    """The state of the random generators of Python, NumPy and torch."""
    version, words, _ = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=True)
    tensors = {
        "python": torch.from_numpy(np.array([version, *words], dtype=np.int64)),  # as quick as can be: in each step
        "numpy": torch.from_numpy(np.append(numpy_state[1].astype(np.int64), numpy_state[2])),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    return tensors


def restore_random(tensors: Tensors) -> None:
    """Restore what `capture_random` returned."""
    version, *words = tensors["python"].tolist()
    random.setstate((version, tuple(words), None))
    *key, position = tensors["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(key, dtype=np.uint32), position, 0, 0.0))
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

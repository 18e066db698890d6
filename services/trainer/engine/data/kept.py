"""Encoded splits in a folder, so that an attempt after a kill, or another run on the same rows, need not encode anew.

A file is named after everything that its tokens depend on: the rows, tokenizer, template and its values, stop tokens,
the format, and the code that encodes. What cannot be read is encoded anew; what cannot be written is not kept. Files
are written at once, and no older than a day: they hold the text of users.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import transformers

import shared.conversation
from services.trainer.engine.data.dataset import Dataset, Encoder
from services.trainer.engine.data.tokens import Example
from shared.errors import TransientError

MOST_FILES = 16
MOST_SECONDS = 86_400.0


def encoded(
    folder: str | None,
    encoder: Encoder,
    path: Path,
    param: str,
    told: Callable[[int], None],
    handed: Path | None = None,
) -> Dataset:
    """The tokens of the file `path`, which the field `param` of the job names: those that the leader of a group has
    handed over in the folder `handed`, those that an earlier run has kept in `folder` (None: nothing is kept), or new
    ones. Raises and tells like `Encoder.read`."""
    if handed is not None:
        if (given := load(handed, param)) is None:
            raise TransientError(f"{handed} does not hold the tokens for all processes of the training: is it full?")
        return given
    if folder is None or not path.is_file():
        return encoder.read(path, param, told)
    key = key_of(path, encoder.tokenizer, encoder.stop_ids, encoder.form, encoder.kwargs)
    if key is None:
        return encoder.read(path, param, told)
    if (found := load(Path(folder), key)) is not None:
        return found
    made = encoder.read(path, param, told)
    save(Path(folder), key, made)
    return made


def key_of(path: Path, tokenizer: Any, stop_ids: Sequence[int], form: str, kwargs: Mapping[str, Any]) -> str | None:
    """The name of what becomes of the file `path`; None: it is another thing on another day."""
    template = json.dumps(tokenizer.chat_template, sort_keys=True)
    if "strftime_now" in template:
        return None
    with path.open("rb") as file:
        rows = hashlib.file_digest(file, "sha256").hexdigest()
    special = {name: str(value) for name, value in tokenizer.special_tokens_map.items()}
    parts = [rows, tokenizer.backend_tokenizer.to_str(), type(tokenizer).__name__, template, special]
    parts += [list(stop_ids), form, dict(kwargs), _code()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def hand_over(datasets: Mapping[str, Dataset], folder: Path) -> None:
    """Let the other processes of a group read these in `folder`, each under its name."""
    for name, dataset in datasets.items():
        save(folder, name, dataset)


def load(folder: Path, key: str) -> Dataset | None:
    """None: it is not there, or damaged."""
    try:
        with np.load(_file(folder, key), allow_pickle=False) as held:
            arrays = {name: held[name] for name in ("ids", "trained", "lengths", "sequences", "items", "dropped")}
        total = int(arrays["lengths"].sum())
        ids = arrays["ids"].astype(np.int64)
        trained = np.unpackbits(arrays["trained"], count=total).astype(np.bool_)
        sizes = (len(arrays["lengths"]), len(arrays["sequences"]))
        if len(ids) != total or sizes != (arrays["sequences"].sum(), arrays["items"].sum()):
            return None
        ends = np.cumsum(arrays["lengths"])
        examples = (
            Example(ids[end - length : end], trained[end - length : end])
            for end, length in zip(ends.tolist(), arrays["lengths"].tolist(), strict=True)
        )
        made = (tuple(islice(examples, count)) for count in arrays["sequences"].tolist())
        rows = tuple(tuple(islice(made, count)) for count in arrays["items"].tolist())
        return Dataset(rows, int(arrays["dropped"]))
    except Exception:  # numpy and zipfile raise anything on damaged bytes
        return None


def save(folder: Path, key: str, dataset: Dataset) -> None:
    """Keep an encoded split, and remove what is old or too many."""
    sequences = [sequence for item in dataset.items for sequence in item]
    temporary = folder / f"{key}.{os.getpid()}.tmp"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(
                file,
                ids=np.concatenate([sequence.tokens for sequence in sequences]).astype(np.uint32),
                trained=np.packbits(np.concatenate([sequence.trained for sequence in sequences])),
                lengths=np.array([len(sequence) for sequence in sequences], np.int64),
                sequences=np.array([len(item) for item in dataset.items], np.int64),
                items=np.array([len(row) for row in dataset.rows], np.int64),
                dropped=np.array(dataset.dropped, np.int64),
            )
        temporary.replace(_file(folder, key))
    except OSError:  # a full disk, say
        with contextlib.suppress(OSError):
            temporary.unlink()
    _remove_old(folder)


def _remove_old(folder: Path) -> None:
    found: list[tuple[float, Path]] = []
    for path in [*folder.glob("*.npz"), *folder.glob("*.tmp")]:
        with contextlib.suppress(OSError):  # another process was faster
            found.append((path.stat().st_mtime, path))
    found.sort(reverse=True)
    oldest = time.time() - MOST_SECONDS
    for number, (changed, path) in enumerate(found):
        if number >= MOST_FILES or changed < oldest:
            path.unlink(missing_ok=True)


def _file(folder: Path, key: str) -> Path:
    return folder / f"{key}.npz"


@cache
def _code() -> str:
    """The code that makes tokens of rows."""
    digest = hashlib.sha256(f"{transformers.__version__} {tokenizers.__version__}".encode())
    for folder in (Path(__file__).parent, Path(shared.conversation.__file__).parent):
        for path in sorted(folder.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()

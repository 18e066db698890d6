"""Whether the files with the weights of a base are there: asked by name, before anything is downloaded or tokenized."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import hf_hub_download, list_repo_files, try_to_load_from_cache
from safetensors import SafetensorError, safe_open

from shared.base import hub
from shared.errors import TransientError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
OTHER_FORMATS = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "consolidated.safetensors")


def problem_of_weights(location: str, *, silent: bool) -> str | None:
    """Why the weights at `location` cannot be loaded, or None. `silent`: the hub does not answer.

    Raises:
        TransientError: they are neither here, nor can the hub be asked.
        OSError: the hub refuses to list or send its files, or the index cannot be read.
        ValueError: the index is not what it should be.
    """
    folder = Path(location)
    if folder.is_dir():
        return _problem(lambda name: (folder / name).is_file(), lambda name: folder / name) or _damage(folder)
    if silent or hub.is_offline():
        problem = _problem(
            lambda name: isinstance(try_to_load_from_cache(location, name), str),
            lambda name: Path(hf_hub_download(location, name, local_files_only=True)),
        )
        if problem and silent:
            raise TransientError(
                "the model hub does not answer, and there is no local copy of the base's weights (HF_ENDPOINT; or "
                "name a folder by TUNESTREAM_MODEL__PATH)"
            )
        return problem
    names = frozenset(list_repo_files(location))
    return _problem(names.__contains__, lambda name: Path(hf_hub_download(location, name)))


def _problem(has: Callable[[str], bool], path: Callable[[str], Path]) -> str | None:
    if has(WHOLE):
        return None
    if not has(INDEX):
        other = next((name for name in OTHER_FORMATS if has(name)), None)
        if other is not None:
            return f"its weights ({other}) are not in the safetensors format of transformers; convert them first"
        return f"it has no weights: neither {WHOLE} nor {INDEX} is there"
    missing = [name for name in _shards(path(INDEX)) if not has(name)]
    if missing:
        more = f" and {len(missing) - 1} more files" if len(missing) > 1 else ""
        return f"it lacks {missing[0]}{more}, which {INDEX} names; download it again"
    return None


def _shards(index: Path) -> list[str]:
    named = json.loads(index.read_bytes())
    if not isinstance(named, dict) or not isinstance(named.get("weight_map"), dict):
        raise ValueError(f"{INDEX} has no weight_map")
    return sorted({str(name) for name in named["weight_map"].values()})


def _damage(folder: Path) -> str | None:
    """A file of a local folder that is shorter than it says at its beginning."""
    names = [WHOLE] if (folder / WHOLE).is_file() else _shards(folder / INDEX)
    for name in names:
        try:
            with safe_open(folder / name, framework="pt"):
                pass
        except SafetensorError:
            return f"{name} is cut off or damaged; download it again"
    return None

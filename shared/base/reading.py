"""Reads the small files of a base from a folder or a hub, through transformers but without torch."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.base import hub
from shared.base.digest import SMALL_FILES
from shared.errors import InputError


@dataclass(frozen=True)
class SmallFiles:
    """The folder of a base's small files, and transformers' objects of them."""

    folder: Path
    config: Any
    tokenizer: Any
    generation: Any


def without_torch() -> None:
    """Keep torch out of this process; call it before anything imports transformers.

    transformers imports torch wherever it is installed, which costs several seconds and hundreds of megabytes that
    tokenizing does not need. After this call `import torch` fails, so it is for processes that only tokenize.
    """
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # "PyTorch was not found"


def read_base(location: str, base: str) -> SmallFiles:
    """Read from a local folder or a hub id. `base` is what users call the model.

    Where the hub does not answer within seconds, the copy of an earlier download is taken.

    Raises:
        InputError: there is no such model, or no tokenizer that can be loaded without running foreign code.
        TransientError: the hub does not answer, and there is no copy; or the disk is full.
        ConfigError: the hub refuses us.
    """
    import transformers  # noqa: PLC0415  takes seconds, and not every process that imports this needs it

    silent = hub.is_silent(location)
    try:
        folder = _folder(location, silent)
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tokenizer = load_tokenizer(str(folder))
    except Exception as error:
        expected = isinstance(error, OSError | ValueError | KeyError)
        if found := hub.trouble(error, base, silent=silent and expected):
            raise found from error
        if not expected:
            raise
        raise InputError(
            "model_not_found",
            f"The base model {base} cannot be loaded: there is no usable tokenizer or config.json at {location!r}. "
            "Name a folder or a hub id that transformers can load without remote code.",
            "model",
        ) from error
    return SmallFiles(folder, config, tokenizer, generation_config(str(folder), config))


def load_tokenizer(location: str, *, local: bool = False) -> Any:
    """The tokenizer of `tokenizer.json`, also where Mistral's own format lies beside it: with `mistral-common`
    installed, transformers would take that, which has no chat template that can be asked for a prompt's text.
    `local`: only copies on this machine are looked for."""
    import transformers  # noqa: PLC0415  see read_base

    folder = Path(location)
    own = {} if folder.is_dir() and not (folder / "tokenizer.json").is_file() else {"mistral_format": False}
    options = {"trust_remote_code": False, "local_files_only": local}
    return transformers.AutoTokenizer.from_pretrained(location, **options, **own)


def generation_config(location: str, config: Any, *, local: bool = False) -> Any:
    """The `generation_config.json`, or what older models say of it in their `config.json`; so does vLLM. `local`: only
    copies on this machine are looked for."""
    import transformers  # noqa: PLC0415  see read_base

    try:
        return transformers.GenerationConfig.from_pretrained(location, local_files_only=local)
    except OSError:
        return transformers.GenerationConfig.from_model_config(config)


def _folder(location: str, silent: bool) -> Path:
    if Path(location).is_dir():
        return Path(location)
    from huggingface_hub import snapshot_download  # noqa: PLC0415  comes with transformers

    return Path(snapshot_download(location, allow_patterns=list(SMALL_FILES), local_files_only=silent))

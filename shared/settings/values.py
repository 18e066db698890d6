"""Values of settings that are written in a form of their own: files, keys, JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode


def _readable(path: Path) -> Path:
    if not (os.access(path, os.R_OK) and path.is_file()):
        raise ValueError(f"there is no file {path} that this process may read")
    return path


def _keys(given: object) -> object:
    """Read API keys: a JSON list, as in every other list field, or one key per line, as in most files of secrets."""
    if not isinstance(given, str):
        return given
    if not given.lstrip().startswith("["):
        return given.split()
    try:
        return json.loads(given)
    except ValueError:
        raise ValueError("is not a JSON list; give one, or one key per line") from None


def json_object(given: object) -> object:
    """Read a JSON object; pydantic's own error would not say which setting is wrong."""
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except ValueError:
        raise ValueError('is not JSON; give an object such as {"name": "value"}') from None


ReadableFile = Annotated[Path, AfterValidator(_readable)]
ApiKeys = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_keys)]

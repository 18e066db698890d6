"""The digest of a base: over its small files and what is set for it, so that every service finds the same profile."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

RULES = 1
"""Raise it when the same files begin to give another profile: profiles of older rules are then not found any more."""

SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model*",
    "added_tokens.json",
    "special_tokens_map.json",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "chat_template*",
    "additional_chat_templates/*.jinja",
)
"""What is read of a base: everything but its weights."""


def small_files(folder: Path) -> list[Path]:
    """The small files of a base, in a fixed order."""
    return sorted(path for pattern in SMALL_FILES for path in folder.glob(pattern) if path.is_file())


def digest_of(folder: Path, overridden: Mapping[str, Any]) -> str:
    """Hex, of SHA-256. `folder`: of the base, or a snapshot of a hub. `overridden`: what the user has set of the
    profile."""
    found = hashlib.sha256(json.dumps({"rules": RULES, "set": overridden}, sort_keys=True).encode())
    for path in small_files(folder):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        found.update(f"\n{path.relative_to(folder).as_posix()} {content}".encode())
    return found.hexdigest()


def template_digest(template: Any) -> str | None:
    """Hex, of SHA-256, of a tokenizer's `chat_template`; None: it has none."""
    if not template:
        return None
    text = json.dumps(template, sort_keys=True) if isinstance(template, dict) else str(template)
    return hashlib.sha256(text.encode()).hexdigest()


def default_template(template: Any) -> str:
    """The template that is used without tools, where a tokenizer has several named ones."""
    if isinstance(template, dict):
        return str(template.get("default") or next(iter(template.values())))
    return str(template)


def template_text(template: Any) -> str:
    """The text of a template, or of all of several named ones."""
    texts: Iterable[str] = template.values() if isinstance(template, dict) else (template,)
    return "\n".join(texts)

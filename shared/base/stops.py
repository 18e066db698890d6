"""At which tokens the server stops."""

from __future__ import annotations

from typing import Any


def stop_ids(tokenizer: Any, generation: Any) -> tuple[int, ...]:
    """The tokenizer's EOS first, then those that `generation_config.json` names: vLLM stops at all of them.

    `tokenizer` and `generation` are a tokenizer and a GenerationConfig of transformers.
    """
    stated = generation.eos_token_id
    stated = stated if isinstance(stated, list) else [stated]
    return tuple(dict.fromkeys(i for i in (tokenizer.eos_token_id, *stated) if i is not None))

"""Makes the profile of a base from its small files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shared.base.digest import default_template, digest_of, template_digest
from shared.base.override import ProfileOverride
from shared.base.probes import Found, probe
from shared.base.profile import Attention, BaseProfile, Knows
from shared.base.reading import SmallFiles, read_base
from shared.base.stops import stop_ids
from shared.conversation import content_format

_NO_LIMIT = 10**9  # a tokenizer without a limit states one of 10**30
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def profile_at(location: str, base: str, override: ProfileOverride | None = None) -> BaseProfile:
    """The profile of the base in a folder or on a hub. Raises like `read_base`."""
    return make_profile(read_base(location, base), override)


def make_profile(files: SmallFiles, override: ProfileOverride | None = None) -> BaseProfile:
    """The profile, without what only vLLM can tell of the base."""
    override = override or ProfileOverride()
    tokenizer, config = files.tokenizer, files.config
    stops = stop_ids(tokenizer, files.generation)
    template = getattr(tokenizer, "chat_template", None)  # Mistral's own tokenizer has none
    found = Found(Knows(), "none", None, None)
    if template:
        found = probe(tokenizer, stops, str(config.model_type), override.chat_template_kwargs)
    made = BaseProfile(
        digest=digest_of(files.folder, override.given()),
        architecture=next(iter(getattr(config, "architectures", None) or ()), type(config).__name__),
        template_digest=template_digest(template),
        content_format=content_format(default_template(template)) if template else None,
        knows=found.knows,
        reasoning=found.reasoning,
        reasoning_parser=found.reasoning_parser,
        tool_call_parser=found.tool_call_parser,
        tokenizer_mode=_tokenizer_mode(files.folder),
        stop_ids=stops,
        stop_tokens=tuple(tokenizer.convert_ids_to_tokens(list(stops))),
        context=_context(config, tokenizer),
        sampling=_sampling(files.generation),
        attention=_attention(config),
    )
    return override.applied_to(made)


def _context(config: Any, tokenizer: Any) -> int | None:
    limits = [getattr(config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length]
    known = [limit for limit in limits if isinstance(limit, int) and 0 < limit < _NO_LIMIT]
    return min(known, default=None)


def _sampling(generation: Any) -> dict[str, float]:
    """As vLLM's `ModelConfig.get_diff_sampling_param`: what differs from the defaults of transformers."""
    stated = generation.to_diff_dict()
    return {name: float(stated[name]) for name in _SAMPLING if isinstance(stated.get(name), int | float)}


def _attention(config: Any) -> Attention:
    text = config.get_text_config()
    layers = getattr(text, "layer_types", None)
    slides = "sliding_attention" in layers if layers else getattr(text, "use_sliding_window", True)
    window = getattr(text, "sliding_window", None)
    return Attention(
        soft_cap=bool(getattr(text, "attn_logit_softcapping", None)),
        sinks=text.model_type.startswith("gpt_oss"),
        sliding_window=window if slides and isinstance(window, int) and window > 0 else None,
    )


def _tokenizer_mode(folder: Path) -> str:
    """vLLM takes Mistral's own format by itself where it lies beside `tokenizer.json`, and the weights are in that
    format, too. It writes other prompts than the chat template, which training goes by, so the template is asked
    for."""
    own = (folder / "tekken.json").is_file() or any(folder.glob("tokenizer.model.v*"))
    if not own:
        return "auto"
    return "hf" if (folder / "tokenizer.json").is_file() else "mistral"

"""What is known of the base before its weights are loaded: its class, tokenizer, limits, stop tokens and layers. A base
that cannot be trained is refused here, before anything is tokenized."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from services.trainer.domain.layers import Layers
from services.trainer.domain.plan import Plan
from services.trainer.engine.model.attention import AttentionChoice, choose_attention
from services.trainer.engine.model.targets import layers_of
from services.trainer.engine.model.weights import problem_of_weights
from services.trainer.engine.report.choices import Sizes
from shared.base import hub, stop_ids
from shared.base.reading import generation_config, load_tokenizer
from shared.errors import InputError

WRITES_TEXT = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")
"""How the names of classes that generate text end. Of another class, such as a classifier, the output head is not in
the weights."""


@dataclass(frozen=True)
class BaseFacts:
    """What the run needs to know of the base.

    `model_class`: the class of transformers that the weights are loaded into. `stop_ids`: the tokens at which the
    server stops, the tokenizer's EOS first. `context`: how many tokens the model can read; None: it states no limit.
    """

    config: Any
    model_class: Any
    tokenizer: Any
    generation: Any
    stop_ids: tuple[int, ...]
    pad_id: int
    context: int | None
    parameters: int
    attention: AttentionChoice
    layers: Layers

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.config.get_text_config(), self.parameters, self.layers, self.context)

    @property
    def linears(self) -> dict[str, int]:
        """Those of `layers`."""
        return self.layers.linears

    @property
    def stored(self) -> Any:
        """The type of torch that the weights have in their files; None: the config does not say."""
        configs = (self.config, self.config.get_text_config())
        return next((dtype for config in configs if (dtype := getattr(config, "dtype", None)) is not None), None)


def inspect_base(plan: Plan, *, kernel: bool = False) -> BaseFacts:
    """Read the small files of the base, and build the model without its weights. `kernel`: see `choose_attention`.

    Raises:
        InputError: `model_not_found`: there is no such model. `unsupported_base`: it cannot be tuned, or only by
            running code that it brings.
        TransientError: the hub does not answer, and there is no local copy.
    """
    location = plan.base.location
    silent = hub.is_silent(location)
    config = _config(plan, silent)
    model_class = _model_class(plan, config)
    skeleton = _skeleton(plan, config, model_class)
    layers = layers_of(skeleton, plan.served_linears)
    if not layers.linears:
        whose = "" if plan.served_linears is None else " that the server can change"
        raise unsupported(plan, f"its text decoder has no linear layers{whose}")
    with loading(plan, silent=silent):
        if problem := problem_of_weights(location, silent=silent):
            raise unsupported(plan, problem)
        tokenizer = load_tokenizer(location, local=silent)
    generation = generation_config(location, config, local=silent)
    stops = stop_ids(tokenizer, generation)
    pad_id = next((i for i in (tokenizer.pad_token_id, *stops) if i is not None), 0)
    return BaseFacts(
        config=config,
        model_class=model_class,
        tokenizer=tokenizer,
        generation=generation,
        stop_ids=stops,
        pad_id=pad_id,
        context=getattr(config.get_text_config(), "max_position_embeddings", None),
        parameters=sum(parameter.numel() for parameter in skeleton.parameters()),
        attention=choose_attention(skeleton, kernel=kernel),
        layers=layers,
    )


@contextmanager
def loading(plan: Plan, *, silent: bool = False) -> Iterator[None]:
    """Explain what transformers raises while it loads the base. `silent`: the hub does not answer.

    Raises:
        InputError: the base is wrong.
        TransientError: the hub does not answer, and there is no local copy; or the disk is full.
        ConfigError: the hub refuses us.
    """
    try:
        yield
    except Exception as error:
        if found := hub.trouble(error, repr(plan.base.id), silent=silent and isinstance(error, OSError)):
            raise found from error
        if not isinstance(error, OSError | ValueError | KeyError):
            raise
        raise _not_loadable(plan, error) from error


def unsupported(plan: Plan, why: str) -> InputError:
    """The error of a base that cannot be tuned."""
    return InputError("unsupported_base", f"base model {plan.base.id!r} cannot be tuned: {why}", "model")


def _config(plan: Plan, silent: bool) -> Any:
    location = plan.base.location
    with loading(plan, silent=silent):
        stated, _ = PretrainedConfig.get_config_dict(location, local_files_only=silent)
        if not stated:
            raise FileNotFoundError("config.json")
    text = stated.get("text_config")
    quantized = stated.get("quantization_config") or (isinstance(text, dict) and text.get("quantization_config"))
    if quantized:
        method = quantized.get("quant_method") if isinstance(quantized, dict) else None
        how = f" ({method})" if method else ""
        raise unsupported(plan, f"its weights are quantized already{how}; name the original (bfloat16) model")
    try:
        config = AutoConfig.from_pretrained(location, trust_remote_code=False, local_files_only=silent)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if found := hub.trouble(error, repr(plan.base.id), silent=silent and isinstance(error, OSError)):
            raise found from error
        if "trust_remote_code" in str(error):
            raise unsupported(plan, "it brings Python code of its own, which is never run") from None
        kind = stated.get("model_type")
        if kind not in transformers.CONFIG_MAPPING:
            called = f"does not know models of the type {kind!r}" if kind else "finds no model_type in its config.json"
            raise unsupported(plan, f"transformers {transformers.__version__} {called}") from None
        raise unsupported(plan, f"transformers cannot read its config.json ({type(error).__name__})") from None
    if getattr(config, "is_encoder_decoder", False):
        raise unsupported(plan, f"{_named(config)} is an encoder-decoder; name a model that only has a decoder")
    return config


def _named(config: Any) -> str:
    return str((getattr(config, "architectures", None) or [type(config).__name__])[0])


def _model_class(plan: Plan, config: Any) -> Any:
    """The class that the config names, if the base has more than a text decoder: the server uses that class, too, and
    knows an adapter's layers by its names."""
    stated = getattr(config, "architectures", None)
    if stated and not stated[0].endswith(WRITES_TEXT):
        raise unsupported(plan, f"{stated[0]} does not generate text")
    if config.get_text_config() is config or not stated or not stated[0].endswith("ForConditionalGeneration"):
        return AutoModelForCausalLM
    try:
        return getattr(transformers, stated[0])
    except (AttributeError, ImportError):
        raise unsupported(plan, f"transformers {transformers.__version__} does not know {stated[0]}") from None


def _skeleton(plan: Plan, config: Any, model_class: Any) -> Any:
    """The model without its weights."""
    try:
        with torch.device("meta"):
            if model_class is AutoModelForCausalLM:
                return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
            return model_class(config)
    except ImportError as error:
        raise unsupported(plan, f"it needs a Python package that is not installed ({_package(error)})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise unsupported(plan, f"{_named(config)} is not a causal language model that transformers knows") from None


def _package(error: ImportError) -> str:
    found = error.name or next((word for word in str(error).split() if word.isidentifier()), "")
    return found or "unknown"


def _not_loadable(plan: Plan, error: Exception) -> InputError:
    text = str(error)
    if "trust_remote_code" in text:
        return unsupported(plan, "it brings Python code of its own, which is never run")
    if "safetensors" in text:
        return unsupported(plan, "its weights are not in the safetensors format; convert them first")
    location = plan.base.location
    if not Path(location).is_dir():
        message = (
            f"base model {plan.base.id!r} was not found: {location!r} is not a local folder, and the hub does not have "
            "it; check the name, or download it and set TUNESTREAM_MODEL__PATH"
        )
        return InputError("model_not_found", message, "model")
    reason = "its folder lacks a readable config.json, tokenizer or weights"
    return unsupported(plan, f"{reason} ({type(error).__name__})")

"""What only vLLM's own code can tell of a base: which of its layers an adapter can change.

The model's class is built without weights (torch's meta device), as vLLM builds it to serve the base.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared.base import ServerFacts

NOT_READ = "Invalid repository ID or local directory"
"""vLLM's words where there is no config.json, and where the hub does not answer."""
LONGEST = 300
"""In characters, of a reason."""

log = logging.getLogger(__name__)


def server_facts(engine: Any) -> ServerFacts:
    """Build the class that vLLM has for a base, and read its layers. It takes about a second. vLLM must run on its CPU
    platform, and this process is of no other use to vLLM afterwards.

    `engine` is an `AsyncEngineArgs` of vLLM that names the base.
    """
    import vllm  # noqa: PLC0415

    version = str(vllm.__version__)
    failures: list[Exception] = []
    with contextlib.suppress(ImportError, AttributeError):
        _look_in_this_process(failures)
    try:
        config = engine.create_model_config()
    except ValueError as error:
        reason = _first_line(error)
        if reason.startswith(NOT_READ):
            return ServerFacts(version=version)
        if failures:  # vLLM's own words are that its log says more
            reason = f"its class cannot be imported: {failures[0]}"[:LONGEST]
        return ServerFacts(version=version, problem=f"vLLM {version} cannot serve this base: {reason}")
    except Exception:
        log.exception("the config of the base cannot be read")
        return ServerFacts(version=version)
    try:
        model = _build(config)
    except Exception:
        log.exception("vLLM's class of the base cannot be built without weights")
        return ServerFacts(version=version)
    name = type(model).__name__
    if not getattr(model, "supports_lora", False):
        problem = f"vLLM {version} cannot serve adapters on {name}"
        return ServerFacts(version=version, linears=(), problem=problem)
    return ServerFacts(version=version, linears=linears(model))


def linears(model: Any) -> tuple[str, ...]:
    """The last names of the linear layers that take adapters, as PEFT names them: vLLM's `qkv_proj` is `q_proj`,
    `k_proj` and `v_proj`. Of a multimodal model only those of its language model, since no adapter reaches the others.

    `model` is a model of vLLM.
    """
    from vllm.lora.utils import get_supported_lora_modules, process_packed_modules_mapping  # noqa: PLC0415

    language = _language_model(model)
    names = set(get_supported_lora_modules(language))
    for module in (model, *language.modules()):
        names -= set(getattr(module, "embedding_modules", None) or ())
    packed = process_packed_modules_mapping(model)
    # experts without names of their own are one tensor, which is no linear layer
    split = {part for name in names - {"experts"} for part in packed.get(name, [name])}
    split |= set(packed.get("experts", ())) if "experts" in names else set()
    return tuple(sorted({name.rpartition(".")[2] for name in split}))


def _language_model(model: Any) -> Any:
    if not hasattr(model, "get_mm_mapping"):
        return model
    prefixes = model.get_mm_mapping().language_model
    prefix = prefixes if isinstance(prefixes, str) else prefixes[0]
    return model.get_submodule(prefix.rstrip(".")) if prefix else model


def _build(config: Any) -> Any:
    import torch  # noqa: PLC0415
    from vllm.config import VllmConfig, set_current_vllm_config  # noqa: PLC0415
    from vllm.distributed import parallel_state  # noqa: PLC0415
    from vllm.model_executor.model_loader.utils import initialize_model  # noqa: PLC0415
    from vllm.utils.torch_utils import set_default_torch_dtype  # noqa: PLC0415

    config.quantization = None  # its layers have the same names, and need no kernels
    whole = VllmConfig(model_config=config)
    with tempfile.TemporaryDirectory() as folder, set_current_vllm_config(whole):
        meeting = f"file://{Path(folder) / 'alone'}"
        parallel_state.init_distributed_environment(1, 0, meeting, 0, backend="gloo")
        try:
            parallel_state.initialize_model_parallel(1, 1)
            with set_default_torch_dtype(config.dtype), torch.device("meta"), _without_kernels():
                return initialize_model(vllm_config=whole)
        finally:
            parallel_state.destroy_model_parallel()
            parallel_state.destroy_distributed_environment()


@contextlib.contextmanager
def _without_kernels() -> Iterator[None]:
    """Let layers be built whose kernels are not there, as on the CPU platform of a GPU build: they are never called."""
    from torch._ops import _OpNamespace  # noqa: PLC0415

    namespace: Any = _OpNamespace
    find = namespace.__getattr__

    def find_or_none(self: Any, name: str) -> Any:
        try:
            return find(self, name)
        except AttributeError:
            return None

    namespace.__getattr__ = find_or_none
    try:
        yield
    finally:
        namespace.__getattr__ = find


def _look_in_this_process(failures: list[Exception]) -> None:
    """Let vLLM import the class of a base here, and note why it cannot. It would start another process for that, so
    that this one stays free of CUDA, and that process would import all of vLLM for ten seconds."""
    from vllm.model_executor.models import registry  # noqa: PLC0415

    def look(self: Any) -> Any:
        try:
            return registry._ModelInfo.from_model_cls(self.load_model_cls())
        except Exception as error:
            failures.append(error)
            raise

    registry._LazyRegisteredModel.inspect_model_cls = look


def _first_line(error: ValueError) -> str:
    """What a validation error of pydantic says, without its frame and without vLLM's list of hundreds of names."""
    errors = getattr(error, "errors", None)
    text = str(errors()[0]["msg"]) if callable(errors) and errors() else str(error)
    return text.removeprefix("Value error, ").partition("Supported architectures")[0].strip()[:LONGEST]

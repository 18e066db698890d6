"""Decides the ports, credentials and base of the embedded stack, and from these the settings of its services."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from cli.stack import ports, state
from cli.stack.programs import RENDER
from cli.stack.state import Stack
from cli.terminal import CliError
from shared.settings import PREFIX, Settings

MARK = "STACK_OF_TUNESTREAM"
"""An environment variable of every process of a stack; after a crash it identifies leftover processes. Its name does
not begin with `TUNESTREAM_`, because services hide such variables from their children, and children may be left over,
too.
"""

LOCAL = "127.0.0.1,localhost"


def is_set(settings: Settings, section: str, field: str) -> bool:
    """Whether the user set a field: in the environment, in `.env` or in the secrets directory."""
    return section in settings.model_fields_set and field in getattr(settings, section).model_fields_set


def make_stack(
    folder: Path,
    directory: Path,
    settings: Settings,
    kept: Stack | None,
    *,
    base: str | None = None,
    base_id: str | None = None,
    without: tuple[str, ...] = (),
    free: Callable[[int], bool] = ports.is_free,
) -> Stack:
    """Decide everything that may differ from machine to machine.

    Flags come first, then the user's settings, then the stack of the last `up` in this state directory (`kept`), then
    the defaults. `free` tells whether a port is free.
    """
    model, path = base_of(settings, kept, base, base_id)
    store, keys = settings.store, settings.inference.api_keys
    if is_set(settings, "inference", "api_keys"):
        api_key = keys[0] if keys else ""
    else:
        api_key = kept.api_key if kept and kept.api_key else state.new_api_key()
    if is_set(settings, "store", "access_key"):
        access_key = store.access_key
    else:
        access_key = kept.access_key if kept else store.access_key
    if is_set(settings, "store", "secret_key"):
        secret_key = store.secret_key.get_secret_value()
    else:
        secret_key = kept.secret_key if kept else state.new_secret()
    preferred = dict(kept.ports) if kept else {}
    for name in ("inference", "api", RENDER):
        if is_set(settings, name, "port"):
            preferred[name] = getattr(settings, name).port
    return Stack(
        state=folder,
        directory=directory,
        ports=ports.choose(preferred, free),
        access_key=access_key,
        secret_key=secret_key,
        region=store.region,
        datasets_bucket=store.datasets_bucket,
        system_bucket=store.system_bucket,
        api_key=api_key,
        base=model,
        base_path=path,
        without=without if _can_render(settings, without) else (*without, RENDER),
    )


def _can_render(settings: Settings, without: tuple[str, ...]) -> bool:
    """Whether the stack has a render server of its own, or `without` says already that it has none. There is none
    where vLLM is not installed, or where the user has one elsewhere."""
    return RENDER in without or (importlib.util.find_spec("vllm") is not None and not settings.render.url)


def base_of(settings: Settings, kept: Stack | None, base: str | None, base_id: str | None) -> tuple[str, str | None]:
    """The id of the base, and its path or hub id if that differs from the id. `base` and `base_id` are flags.

    Raises:
        CliError: `base` is neither the folder of a model nor a hub id.
    """
    if base is None:
        if kept and not is_set(settings, "model", "id") and not is_set(settings, "model", "path"):
            model, path = kept.base, kept.base_path
        else:
            model, path = settings.model.id, settings.model.path
        return base_id or model, path or (model if base_id else None)
    folder = Path(base)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise CliError(f"{base} holds no config.json", "give the folder of a Hugging Face model, or a hub id")
        return base_id or folder.resolve().name, str(folder.resolve())
    if base.startswith((".", "/", "~")) or base.count("/") > 1:
        raise CliError(
            f"there is no folder {base}", "give the folder of a Hugging Face model, or a hub id (organization/name)"
        )
    return base_id or base, base if base_id else None


def environment(stack: Stack, settings: Settings) -> dict[str, str]:
    """The settings of all services as variables.

    The addresses and credentials of the stack's own parts are always set. Other settings are left out if the user set
    them, because variables would win over the user's `.env`.
    """
    keys = settings.inference.api_keys if is_set(settings, "inference", "api_keys") else (stack.api_key,)
    variables = {
        "STORE__ENDPOINT": stack.s3_url,
        "STORE__ACCESS_KEY": stack.access_key,
        "STORE__SECRET_KEY": stack.secret_key,
        "BUS__BOOTSTRAP": stack.kafka,
        "BUS__IDEMPOTENT": "false",  # Tansu refuses InitProducerId
        "INFERENCE__PORT": str(stack.ports["inference"]),
        "INFERENCE__URL": stack.inference_url,
        "INFERENCE__API_KEYS": json.dumps(keys),
        "API__PORT": str(stack.ports["api"]),
        "API__URL": stack.api_url,
        "MODEL__ID": stack.base,
    }
    if stack.base_path:
        variables["MODEL__PATH"] = stack.base_path
    if stack.render_url:
        variables["RENDER__URL"] = stack.render_url
        variables["RENDER__PORT"] = str(stack.ports[RENDER])
    if keys:
        variables["EVALUATOR__API_KEY"] = keys[0]
    defaults = {
        ("bus", "fetch_max_wait_ms"): "250",  # Tansu holds an empty fetch for half of it, even if records arrive
        # SeaweedFS sends no notifications, so sweep often. Its puts are atomic, so an object may be read at once
        ("ingest", "sweep_seconds"): "0.2",
        ("ingest", "settle_seconds"): "0",
        ("trainer", "work_dir"): str(stack.state / "trainer"),
        ("inference", "adapter_dir"): str(stack.state / "adapters"),
        ("api", "database"): str(stack.state / "api.sqlite3"),
    }
    for (section, field), value in defaults.items():
        if not is_set(settings, section, field):
            variables[f"{section.upper()}__{field.upper()}"] = value
    return {PREFIX + name: value for name, value in variables.items()}


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """The user's environment without variables that would mislead the parts of the stack. No proxy is used for
    loopback."""
    kept = {name: value for name, value in environ.items() if not name.startswith("AWS_") and name != MARK}
    for name in ("NO_PROXY", "no_proxy"):
        kept[name] = ",".join(filter(None, (kept.get(name), LOCAL)))
    return kept


def write_environment(stack: Stack, variables: Mapping[str, str]) -> Path:
    """Write `STATE/env`, to run a service by hand: `set -a; . .tunestream/env; python -m services.trainer`."""
    path = stack.state / "env"
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in sorted(variables.items())]
    state.write_private(path, "".join(lines))
    return path


def absolute(folder: Path) -> Path:
    """The absolute path of a folder; links are not resolved."""
    return Path(os.path.abspath(folder))  # noqa: PTH100  # not resolve(): a link keeps its name

"""Which Tunestream a command speaks to: the embedded stack of the state directory, else what the settings say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from cli.stack import state
from cli.stack.plan import absolute
from shared.settings import Store, load_settings

StateOption = Annotated[
    Path, typer.Option("--state", envvar="TUNESTREAM_STATE", help="Where the embedded stack keeps its data.")
]


@dataclass(frozen=True)
class Target:
    api_url: str
    inference_url: str
    api_key: str | None
    store: Store
    jaeger_url: str | None = None


def resolve(folder: Path) -> Target:
    """The target of a command.

    Raises:
        CliError, ConfigError: `stack.json` or the settings are damaged.
    """
    jaeger_url = load_settings().telemetry.jaeger_url
    if stack := state.load(absolute(folder)):
        store = Store(
            endpoint=stack.s3_url,
            access_key=stack.access_key,
            secret_key=SecretStr(stack.secret_key),
            region=stack.region,
            datasets_bucket=stack.datasets_bucket,
            system_bucket=stack.system_bucket,
        )
        return Target(stack.api_url, stack.inference_url, stack.api_key or None, store, jaeger_url)
    settings = load_settings()
    keys = settings.inference.api_keys
    key = keys[0] if keys else None
    return Target(settings.api.url, settings.inference.url, key, settings.store, jaeger_url)

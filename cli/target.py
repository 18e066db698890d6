"""Decides which stack a command uses. The first of these that applies:

1. the embedded stack whose data `--state` names;
2. the stack at TUNESTREAM_API__URL, if that is in the environment; its other addresses and credentials are settings;
3. the embedded stack of TUNESTREAM_STATE, or of `.tunestream`, if there ever was one;
4. the stack of the settings: `.env` and defaults.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from cli.stack import state
from cli.stack.plan import absolute
from cli.stack.state import DEFAULT_STATE, Stack
from cli.terminal import CliError
from shared.settings import PREFIX, BusSettings, StoreSettings, load_settings

API_VARIABLE = f"{PREFIX}API__URL"
STATE_VARIABLE = f"{PREFIX}STATE"

StateOption = Annotated[
    Path, typer.Option("--state", envvar=STATE_VARIABLE, help="The directory of the embedded stack's data.")
]
TargetOption = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help=f"The directory of an embedded stack; else {API_VARIABLE}, {STATE_VARIABLE} or {DEFAULT_STATE} count.",
    ),
]


@dataclass(frozen=True)
class Target:
    """The addresses and credentials of a stack, embedded or not."""

    api_url: str
    inference_url: str
    api_key: str | None
    store: StoreSettings
    bus: BusSettings
    base: str
    """The id of the base model."""
    jaeger_url: str | None = None


def resolve(folder: Path | None) -> Target:
    """The target of a command. `folder` is the option `--state`.

    Raises:
        CliError, ConfigError: there is no stack in `folder`, or `stack.json` or the settings are damaged.
    """
    settings = load_settings()
    jaeger_url = settings.telemetry.jaeger_url
    if stack := embedded(folder):
        return of_stack(stack, jaeger_url)
    keys = settings.inference.api_keys
    return Target(
        api_url=settings.api.url,
        inference_url=settings.inference.url,
        api_key=keys[0] if keys else None,
        store=settings.store,
        bus=settings.bus,
        base=settings.model.id,
        jaeger_url=jaeger_url,
    )


def embedded(folder: Path | None) -> Stack | None:
    """The embedded stack that a command means, running or not; None: the command means a stack that was not started
    here.

    Raises:
        CliError: there is none in `folder`, or `stack.json` is damaged.
    """
    if folder is not None:
        if stack := state.load(absolute(folder)):
            return stack
        raise CliError(f"there is no embedded stack in {folder}", f"`tunestream up --state {folder}` starts one")
    # The environment is asked and not the settings, because an embedded stack reads `.env`, too.
    if os.environ.get(API_VARIABLE):
        return None
    return state.load(absolute(Path(os.environ.get(STATE_VARIABLE) or DEFAULT_STATE)))


def of_stack(stack: Stack, jaeger_url: str | None) -> Target:
    """The target of an embedded stack."""
    return Target(
        api_url=stack.api_url,
        inference_url=stack.inference_url,
        api_key=stack.api_key or None,
        store=StoreSettings(
            endpoint=stack.s3_url,
            access_key=stack.access_key,
            secret_key=SecretStr(stack.secret_key),
            region=stack.region,
            datasets_bucket=stack.datasets_bucket,
            system_bucket=stack.system_bucket,
        ),
        bus=BusSettings(bootstrap=stack.kafka),
        base=stack.base,
        jaeger_url=jaeger_url,
    )

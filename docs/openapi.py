"""Makes the apps of the public services, for their OpenAPI documents. Nothing is connected to."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.api.app import build as build_api
from services.inference.app import build as build_inference
from shared.kafka.bus import Bus
from shared.service import Context, Parts
from shared.settings import Settings
from shared.store.objects import ObjectStore

SERVICES: dict[str, Callable[[Context], Parts]] = {"api": build_api, "inference": build_inference}


def documents() -> dict[str, dict[str, Any]]:
    """The OpenAPI document of each public service, as it answers `/openapi.json`."""
    return {name: asyncio.run(_document(name, build)) for name, build in SERVICES.items()}


async def _document(name: str, build: Callable[[Context], Parts]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        own = {"api": {"database": Path(folder) / "api.sqlite3"}, "inference": {"adapter_dir": folder}}
        settings = Settings.model_validate({**own, "vllm": {"url": "http://127.0.0.1:1"}})
        objects = ObjectStore.connect(settings.store)
        parts = build(Context(settings, objects, Bus(settings.bus, name, objects.now)))
        assert parts.app is not None and parts.close is not None
        try:
            return parts.app.openapi()
        finally:
            await parts.close()

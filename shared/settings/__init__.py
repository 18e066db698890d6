"""All settings, one section per concern, from environment variables, `.env` and files of secrets.

The variable `TUNESTREAM_{SECTION}__{FIELD}` sets a field, for example `TUNESTREAM_STORE__ENDPOINT`. Secrets may also be
files: `TUNESTREAM_SECRETS_DIR` names a folder in which each file is named after a variable. The environment has
precedence over `.env`, and both have precedence over files.
"""

from __future__ import annotations

from shared.settings.embeddings import EmbeddingsSettings
from shared.settings.ingest import IngestSettings
from shared.settings.load import (
    PREFIX,
    RENAMED,
    Settings,
    load_settings,
)
from shared.settings.sections import (
    ApiSettings,
    BusSettings,
    EvaluatorSettings,
    GpuSettings,
    HealthSettings,
    InferenceSettings,
    JanitorSettings,
    ModelSettings,
    RenderSettings,
    RetentionSettings,
    Section,
    StageSettings,
    StoreSettings,
    TelemetrySettings,
    TrainerSettings,
    ValidationSettings,
    VllmSettings,
    WebhookSettings,
)
from shared.settings.synthesis import SynthesisSettings
from shared.settings.tracking import TrackingSettings
from shared.settings.values import ApiKeys, ReadableFile

__all__ = [
    "PREFIX",
    "RENAMED",
    "ApiKeys",
    "ApiSettings",
    "BusSettings",
    "EmbeddingsSettings",
    "EvaluatorSettings",
    "GpuSettings",
    "HealthSettings",
    "InferenceSettings",
    "IngestSettings",
    "JanitorSettings",
    "ModelSettings",
    "ReadableFile",
    "RenderSettings",
    "RetentionSettings",
    "Section",
    "Settings",
    "StageSettings",
    "StoreSettings",
    "SynthesisSettings",
    "TelemetrySettings",
    "TrackingSettings",
    "TrainerSettings",
    "ValidationSettings",
    "VllmSettings",
    "WebhookSettings",
    "load_settings",
]

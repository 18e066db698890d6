"""All settings, one section per concern, from environment variables and `.env`.

A field is set by `TUNESTREAM_{SECTION}__{FIELD}`, for example `TUNESTREAM_STORE__ENDPOINT`. Secrets may also be files:
`TUNESTREAM_SECRETS_DIR` names a folder whose file names are variable names. A variable of the environment wins over
`.env`, and both win over a file.
"""

from __future__ import annotations

from shared.settings.load import (
    PREFIX,
    RENAMED,
    Settings,
    load_settings,
)
from shared.settings.sections import (
    ApiKeys,
    ApiSettings,
    BusSettings,
    EvaluatorSettings,
    GpuSettings,
    HealthSettings,
    InferenceSettings,
    IngestSettings,
    ModelSettings,
    ReadableFile,
    Section,
    StageSettings,
    StoreSettings,
    TelemetrySettings,
    TrainerSettings,
    ValidationSettings,
    VllmSettings,
)

__all__ = [
    "PREFIX",
    "RENAMED",
    "ApiKeys",
    "ApiSettings",
    "BusSettings",
    "EvaluatorSettings",
    "GpuSettings",
    "HealthSettings",
    "InferenceSettings",
    "IngestSettings",
    "ModelSettings",
    "ReadableFile",
    "Section",
    "Settings",
    "StageSettings",
    "StoreSettings",
    "TelemetrySettings",
    "TrainerSettings",
    "ValidationSettings",
    "VllmSettings",
    "load_settings",
]

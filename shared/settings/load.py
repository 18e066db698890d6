"""All sections together, and where their values come from."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from shared.errors import ConfigError
from shared.settings.embeddings import EmbeddingsSettings
from shared.settings.ingest import IngestSettings
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

log = logging.getLogger(__name__)

PREFIX = "TUNESTREAM_"
RENAMED = {("stage", "max_epochs"): "max_deaths", ("stage", "max_attempts"): "max_deaths"}
"""(section, old name) of a field: its name now. The old name is still read, with a warning."""


class Settings(BaseSettings):
    """All settings, one field per section."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,  # docker compose sets variables that are not given to an empty text
        env_file=".env",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )

    bus: BusSettings = BusSettings()
    store: StoreSettings = StoreSettings()
    model: ModelSettings = ModelSettings()
    stage: StageSettings = StageSettings()
    ingest: IngestSettings = IngestSettings()
    synthesis: SynthesisSettings = SynthesisSettings()
    validation: ValidationSettings = ValidationSettings()
    trainer: TrainerSettings = TrainerSettings()
    gpu: GpuSettings = GpuSettings()
    vllm: VllmSettings = VllmSettings()
    render: RenderSettings = RenderSettings()
    inference: InferenceSettings = InferenceSettings()
    evaluator: EvaluatorSettings = EvaluatorSettings()
    embeddings: EmbeddingsSettings = EmbeddingsSettings()
    api: ApiSettings = ApiSettings()
    retention: RetentionSettings = RetentionSettings()
    janitor: JanitorSettings = JanitorSettings()
    webhooks: WebhookSettings = WebhookSettings()
    health: HealthSettings = HealthSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="before")
    @classmethod
    def _read_old_names(cls, given: dict[str, Any]) -> dict[str, Any]:
        for (section, old), new in RENAMED.items():
            fields = given.get(section)
            if isinstance(fields, dict) and old in fields:
                prefix = f"{PREFIX}{section.upper()}__"
                log.warning(f"{prefix}{old.upper()} is called {prefix}{new.upper()} now; please rename it")
                given = {**given, section: {new: fields[old]} | {k: v for k, v in fields.items() if k != old}}
        return given

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # pydantic's default source of secret files reads whole sections only; this one reads `{SECTION}__{FIELD}`
        files = NestedSecretsSettingsSource(file_secret_settings)
        return init_settings, env_settings, dotenv_settings, files


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """Read the settings. Later calls return the same object.

    Raises:
        ConfigError: the settings are wrong. The message names each wrong variable, in one line.
    """
    folder = os.environ.get(f"{PREFIX}SECRETS_DIR")
    if folder and not Path(folder).is_dir():
        raise ConfigError(f"{PREFIX}SECRETS_DIR: there is no folder {folder}")
    sources: dict[str, Any] = {"_secrets_dir": folder} if folder else {}
    try:
        return Settings(**sources)
    except ValidationError as error:
        raise ConfigError(f"wrong settings: {'; '.join(map(_wording, error.errors(include_url=False)))}") from None
    except OSError as error:
        raise ConfigError(f"wrong settings: cannot read {error.filename}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"wrong settings: .env, or a file in {PREFIX}SECRETS_DIR, is not text in UTF-8") from None
    except SettingsError as error:
        raise ConfigError(f"wrong settings: {error}") from None


def _wording(problem: Any) -> str:
    reason = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "value_error" and len(problem["loc"]) == 1:
        return reason  # a rule about several fields of a section names them itself
    return f"{PREFIX}{'__'.join(str(part).upper() for part in problem['loc'])}: {reason}"

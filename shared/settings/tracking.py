"""The section of the experiment trackers."""

from __future__ import annotations

from pathlib import Path

from shared.settings.sections import Section


class TrackingSettings(Section):
    """Experiment trackers, which the trainer service tells of every step of a training. Each needs its client:
    `pip install 'tunestream[tensorboard]'`, `[mlflow]`, `[wandb]`. A tracker that is away stops no training."""

    tensorboard: Path | None = None
    """A folder; each job writes into a folder of its own below it."""
    mlflow: str | None = None
    """The URI of a tracking server, or of a folder (`file:///…`). User and password: `MLFLOW_TRACKING_USERNAME`,
    `MLFLOW_TRACKING_PASSWORD`."""
    wandb: str | None = None
    """The project of Weights & Biases, for jobs that name none (`integrations`). The key: `WANDB_API_KEY`."""

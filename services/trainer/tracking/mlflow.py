"""MLflow: a run on a tracking server, or in a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from services.trainer.engine.messages import StepDone
from services.trainer.tracking.tracker import Outcome, Run, figures

# read by the client for each request; its own defaults are minutes, in which the end of a job would wait
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

EXPERIMENT = "tunestream"
JOB = "tunestream.job_id"
"""The tag by which the run of a job is found again."""
STATUS = {"completed": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
MOST_METRICS = 1000
MOST_CHARS = 500
"""Of a parameter's value: the limit of older servers."""


class MLflow:
    """Writes a run to the store at `uri`."""

    def __init__(self, uri: str) -> None:
        self._client = MlflowClient(tracking_uri=uri)
        self._run = ""

    def begin(self, run: Run, first_step: int) -> None:
        name = EXPERIMENT if run.project is None else f"{EXPERIMENT}/{run.project}"
        found = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if found is None else found.experiment_id
        runs = self._client.search_runs([experiment], f"tags.`{JOB}` = '{run.job_id}'", max_results=1)
        tags = {JOB: run.job_id, **run.facts}
        if runs:
            self._run = runs[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
        else:
            self._run = self._client.create_run(experiment, run_name=run.job_id, tags=tags).info.run_id
        known = self._client.get_run(self._run).data.params
        parameters = {key: str(value)[:MOST_CHARS] for key, value in run.parameters.items() if key not in known}
        self._client.log_batch(
            self._run,
            params=[Param(key, value) for key, value in parameters.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )

    def log(self, steps: Sequence[StepDone]) -> None:
        metrics: list[Any] = [
            Metric(name, value, round(step.at * 1000), step.step)
            for step in steps
            for name, value in figures(step).items()
        ]
        for begin in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(self._run, metrics=metrics[begin : begin + MOST_METRICS])

    def end(self, outcome: Outcome) -> None:
        self._client.set_terminated(self._run, STATUS[outcome])

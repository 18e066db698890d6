"""Every event and every document that services exchange, as frozen pydantic models.

`docs/asyncapi.json` and `docs/schemas/` are generated from this package (`make docs`). Within `.v1` only optional
fields are added; readers ignore fields that they do not know. See docs/architecture.md, "Events".
"""

from __future__ import annotations

from shared.events.documents import (
    AttemptNumber,
    Claim,
    Deployed,
    Deployment,
    EventRecord,
    Job,
    StageResult,
)
from shared.events.events import (
    BY_TOPIC,
    EVENTS,
    RUNNER_STAGES,
    SERVICES,
    STAGE_NAMES,
    CheckpointInfo,
    DatasetUploaded,
    DatasetValidated,
    EvalCompleted,
    Event,
    InferenceFeedback,
    InferenceLogged,
    Interval,
    JobControl,
    JobFailed,
    JobProgress,
    ModelDegraded,
    ModelDeployed,
    Overfitting,
    ProgressState,
    Split,
    StageName,
    StageOutcome,
    TrainingCompleted,
)
from shared.events.models import (
    FrozenModel,
    StrictModel,
)
from shared.events.references import (
    DatasetPointer,
    FolderReference,
    Reference,
)
from shared.events.served import Served
from shared.events.spec import (
    Auto,
    Evaluation,
    Gate,
    Hyperparameters,
    JobSpec,
    Lora,
    Method,
    Origin,
    Splits,
)

__all__ = [
    "BY_TOPIC",
    "EVENTS",
    "RUNNER_STAGES",
    "SERVICES",
    "STAGE_NAMES",
    "AttemptNumber",
    "Auto",
    "CheckpointInfo",
    "Claim",
    "DatasetPointer",
    "DatasetUploaded",
    "DatasetValidated",
    "Deployed",
    "Deployment",
    "EvalCompleted",
    "Evaluation",
    "Event",
    "EventRecord",
    "FolderReference",
    "FrozenModel",
    "Gate",
    "Hyperparameters",
    "InferenceFeedback",
    "InferenceLogged",
    "Interval",
    "Job",
    "JobControl",
    "JobFailed",
    "JobProgress",
    "JobSpec",
    "Lora",
    "Method",
    "ModelDegraded",
    "ModelDeployed",
    "Origin",
    "Overfitting",
    "ProgressState",
    "Reference",
    "Served",
    "Split",
    "Splits",
    "StageName",
    "StageOutcome",
    "StageResult",
    "StrictModel",
    "TrainingCompleted",
]

"""What to change after a training that overfitted or underfitted: the usual remedies, with the numbers of this run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from shared.events import TrainingCompleted

FEW_ROWS = 500
"""Below so many training rows, more rows are the first remedy."""
DROPOUT = 0.1
LOW_RANK = 8


def remedies(training: TrainingCompleted) -> tuple[str, ...]:
    """Sentences, the most promising first; none where the training was healthy."""
    match training.overfitting.verdict:
        case "overfitting":
            return _overfitting(training)
        case "underfitting":
            return _underfitting(training)
        case _:
            return ()


def _overfitting(training: TrainingCompleted) -> tuple[str, ...]:
    used, best = training.hyperparameters, training.overfitting.best_step
    found = []
    if best is not None and training.steps > best:
        at = training.epochs * best / training.steps
        fewer = max(1, math.floor(at + 0.5))
        epochs = f"set hyperparameters.n_epochs to {fewer}" if fewer < training.epochs else "train less than one epoch"
        kept = next((one.step for one in training.checkpoints if one.step == best), None)
        found.append(
            f"Fewer epochs: validation loss was best at step {best:,} of {training.steps:,}, which is epoch {at:.2g} "
            f"of {training.epochs:.3g}; {epochs}"
            + (f", or use the checkpoint of that step, {training.model}:ckpt-step-{best}" if kept is not None else "")
            + "."
        )
    rate = _number(used, "learning_rate")
    if rate is not None:
        found.append(f"A lower learning rate: it was {rate:.2g}; try {rate / 2:.2g} (hyperparameters.learning_rate).")
    rows = training.train.examples if training.train else None
    if rows is not None:
        many = "few for a model that is to generalise" if rows < FEW_ROWS else "and more variety among them helps, too"
        found.append(f"More rows: there were {rows:,} to train on, {many}; each was seen {training.epochs:.3g} times.")
    dropout = _number(used, "lora_dropout")
    if dropout is None or dropout < DROPOUT:
        found.append(f"More regularization: dropout was {dropout or 0:g}; set lora.dropout to {DROPOUT:g}.")
    decay = _number(used, "weight_decay")
    if decay is not None and decay < 0.01:
        found.append(f"Weight decay was {decay:g}; set hyperparameters.weight_decay to 0.01.")
    if training.rank > LOW_RANK:
        found.append(
            f"A smaller adapter: its rank was {training.rank}; try lora.r = {max(LOW_RANK, training.rank // 2)}."
        )
    if _number(used, "early_stopping_patience") == 0:
        found.append("Early stopping was off: set hyperparameters.early_stopping_patience to 3.")
    return tuple(found)


def _underfitting(training: TrainingCompleted) -> tuple[str, ...]:
    used = training.hyperparameters
    epochs = math.ceil(training.epochs)
    found = [f"More epochs: there were {training.epochs:.3g}; set hyperparameters.n_epochs to {max(2, 2 * epochs)}."]
    rate = _number(used, "learning_rate")
    if rate is not None:
        found.append(f"A higher learning rate: it was {rate:.2g}; try {2 * rate:.2g} (hyperparameters.learning_rate).")
    if training.rank < 64:
        found.append(f"A larger adapter: its rank was {training.rank}; try lora.r = {max(16, 2 * training.rank)}.")
    return tuple(found)


def _number(used: Mapping[str, Any], name: str) -> float | None:
    value = used.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

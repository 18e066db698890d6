"""The training loop: steps, validations, checkpoints. It can be interrupted at any moment and continued exactly."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from services.trainer.domain.overfitting import Point
from services.trainer.domain.plan import Plan
from services.trainer.domain.schedule import checkpoint_overdue, checkpoint_steps, validation_steps
from services.trainer.engine import checkpoints
from services.trainer.engine.messages import CheckpointWritten, PhaseBegan, StepRow
from services.trainer.engine.model.adapter import adapter_tensors, load_adapter_tensors
from services.trainer.engine.report.reporter import Reporter
from services.trainer.engine.state import State, read_state
from services.trainer.engine.step import Stepper
from services.trainer.engine.validation import Validator
from shared.events import CheckpointInfo


class Interrupted(Exception):
    """The process was asked to stop; the newest checkpoint holds what it reached."""


class Loop:
    """One run. `validator` is None if there is no validation data."""

    def __init__(self, plan: Plan, stepper: Stepper, validator: Validator | None, reporter: Reporter) -> None:
        self.plan = plan
        self.stepper = stepper
        self.validator = validator
        self.reporter = reporter
        self.model = stepper.model
        self.memory = stepper.memory
        self.steps = stepper.steps
        self.patience = stepper.chosen.early_stopping_patience.value
        self.validate_at = validation_steps(self.steps, plan.eval_every) if validator else frozenset()
        self.checkpoint_at = checkpoint_steps(self.steps, plan.checkpoint_every)
        data = [len(stepper.train.items), stepper.train.tokens]
        self.state = State(identity={**plan.identity(), "chosen": stepper.chosen.values(), "data": data})
        self.best_adapter: dict[str, Any] | None = None

    @property
    def stopped_early(self) -> bool:
        return self.state.step < self.steps.total and self.state.best.exhausted(self.patience)

    def run(self) -> None:
        """Train to the end or until early stopping, then put the adapter with the best validation loss into the model.

        Raises:
            Interrupted: asked to stop; a checkpoint was written.
            InputError: `out_of_memory` or `training_diverged`.
        """
        if self.memory.device.type == "cuda" and self.state.fit is None:
            self.stepper.dry_run()
            fit = self.memory.fit
            self.reporter.send(
                PhaseBegan(at=time.time(), phase="fit", micro_tokens=fit.micro_tokens, recompute=fit.recompute)
            )
        first, seconds_before = self.state.step, self.state.seconds
        began = written = time.monotonic()
        seconds_to_write = 0.0
        while self.state.step < self.steps.total and not self.stopped_early:
            if self.state.step == first or self.steps.ends_epoch(self.state.step):
                self.reporter.phase(f"epoch {self.steps.position(self.state.step)[0] + 1}")
            row = self._step()
            self.state.seconds = seconds_before + time.monotonic() - began
            if row is None:
                if self.state.step > first:
                    self._checkpoint(self.reporter.rows()[-1])
                raise Interrupted
            step = self.state.step
            if step in self.validate_at:
                row = row.model_copy(update=self._validate())
            seconds_per_step = (time.monotonic() - began) / (step - first)
            self.reporter.step(row, eta_seconds=seconds_per_step * (self.steps.total - step))
            if step in self.checkpoint_at or self.stopped_early or self._checkpoint_due(written, seconds_to_write):
                started = time.monotonic()
                self._checkpoint(row)
                written = time.monotonic()
                seconds_to_write = written - started
        if self.best_adapter is not None and self.state.best.step != self.state.step:
            load_adapter_tensors(self.model, self.best_adapter)

    def resume(self, folder: Path) -> None:
        """Restore the checkpoint in `folder`, so that `run` continues from there.

        Raises:
            InputError: `checkpoint_mismatch`: it was made with other settings.
        """
        tensors, documents = checkpoints.read(folder)
        self.state = read_state(documents["state.json"], self.state.identity)
        checkpoints.restore(self.model, self.stepper.optimizer, tensors)
        self.best_adapter = tensors.get("best")
        if self.state.fit is not None:
            self.memory.use(self.state.fit)
        self.reporter.start_rows(documents["metrics.jsonl"])

    def _step(self) -> StepRow | None:
        """Take one optimizer step. None when interrupted."""
        state, began = self.state, time.monotonic()
        stepped = self.stepper.take(state.step)
        if stepped is None:
            return None
        state.step += 1
        state.fit = self.memory.fit
        state.trained_tokens += stepped.trained_tokens
        loss_sum, count = state.since_validation
        state.since_validation = (loss_sum + stepped.loss, count + 1)
        return StepRow(
            step=state.step,
            total_steps=self.steps.total,
            epoch=round(self.steps.epochs_done(state.step), 4),
            train_loss=stepped.loss,
            train_mean_token_accuracy=stepped.accuracy,
            learning_rate=stepped.learning_rate,
            grad_norm=stepped.grad_norm,
            tokens=stepped.tokens,
            tokens_per_second=round(stepped.tokens / (time.monotonic() - began), 1),
        )

    def _validate(self) -> dict[str, float]:
        """Measure the validation loss, and keep the best adapter. Returns the `valid_*` fields of the step's row."""
        assert self.validator is not None
        state = self.state
        quick, full = self.validator.measure(ends_epoch=self.steps.ends_epoch(state.step))
        loss_sum, count = state.since_validation
        state.points = [*state.points, Point(state.step, loss_sum / max(1, count), quick.loss)]
        state.since_validation = (0.0, 0)
        state.best = state.best.after(state.step, quick.loss)
        if state.best.step == state.step:
            self.best_adapter = adapter_tensors(self.model)
        figures = {"valid_loss": quick.loss, "valid_mean_token_accuracy": quick.accuracy}
        if full is not None:
            figures |= {"full_valid_loss": full.loss, "full_valid_mean_token_accuracy": full.accuracy}
        return figures

    def _checkpoint_due(self, written: float, seconds_to_write: float) -> bool:
        if self.plan.checkpoint_every != "auto":
            return False
        return checkpoint_overdue(time.monotonic() - written, seconds_to_write)

    def _checkpoint(self, row: StepRow) -> None:
        state = self.state
        info = CheckpointInfo(
            step=state.step,
            prefix=f"checkpoints/step-{state.step}/",
            train_loss=row.train_loss,
            valid_loss=row.valid_loss,
        )
        state.checkpoints = [*(c for c in state.checkpoints if c.step != state.step), info]
        tensors = checkpoints.capture(self.model, self.stepper.optimizer)
        if self.best_adapter is not None:
            tensors["best"] = self.best_adapter
        documents = {
            "state.json": state.model_dump_json().encode(),
            "metrics.jsonl": self.reporter.rows_file.read_bytes(),
        }
        path = checkpoints.write(self.reporter.out / "checkpoints", state.step, tensors, documents)
        self.reporter.send(
            CheckpointWritten(
                at=time.time(),
                path=str(path.relative_to(self.reporter.out)),
                step=info.step,
                train_loss=info.train_loss,
                valid_loss=info.valid_loss,
            )
        )

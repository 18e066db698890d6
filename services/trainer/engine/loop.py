"""The training loop: steps, validations, checkpoints. It can be interrupted at any moment and continued exactly.

Checkpoints do not stop it: the state is copied, and a thread writes the copy while the next steps run.
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import Any

from services.trainer.domain.fits import Fit
from services.trainer.domain.overfitting import Point, above_noise
from services.trainer.domain.plan import Plan
from services.trainer.domain.schedule import checkpoint_overdue, checkpoint_steps, listed_steps, validation_steps
from services.trainer.domain.utilization import Cost
from services.trainer.engine import checkpoints
from services.trainer.engine.dry_run import dry_run
from services.trainer.engine.messages import (
    CheckpointWritten,
    Estimated,
    Lowered,
    MemoryLowered,
    PhaseBegan,
    StepRow,
)
from services.trainer.engine.model.adapter import adapter_config, adapter_tensors, load_adapter_tensors
from services.trainer.engine.report.forecast import Forecast
from services.trainer.engine.report.pace import Pace
from services.trainer.engine.report.reporter import Reporter
from services.trainer.engine.report.spending import Spending
from services.trainer.engine.snapshot import Snapshots
from services.trainer.engine.state import State, read_state
from services.trainer.engine.step import Stepper
from services.trainer.engine.validation import Validator
from services.trainer.engine.writer import Writer
from shared.errors import InputError
from shared.events import CheckpointInfo

MOST_SKIPPED = 3
"""Steps without a finite loss in a row, after which training ends: the adapter does not change by itself."""


class Interrupted(Exception):
    """The process was asked to stop; the newest checkpoint holds what it reached."""


class Loop:
    """One run. `validator` is None if there is no validation data; `start` is the digest of the adapter that the run
    starts from, None if that is a fresh one. `cost`: of a token, None if the device's peak is not known. `forecast`:
    what to tell of memory and time before the first step. `spending`: of the budget; None: there is none."""

    def __init__(
        self,
        plan: Plan,
        stepper: Stepper,
        validator: Validator | None,
        reporter: Reporter,
        start: str | None = None,
        cost: Cost | None = None,
        forecast: Forecast | None = None,
        spending: Spending | None = None,
    ) -> None:
        self.plan = plan
        self.stepper = stepper
        self.validator = validator
        self.reporter = reporter
        self.model = stepper.model
        self.memory = stepper.memory
        self.steps = stepper.steps
        self.patience = stepper.chosen.early_stopping_patience.value
        self.validate_at = validation_steps(self.steps, plan.eval_every) if validator else frozenset()
        self.listed_at = listed_steps(self.steps)
        self.checkpoint_at = checkpoint_steps(self.steps, plan.checkpoint_every)
        self.pace = Pace(
            self.steps.total,
            {s: validator.tokens(ends_epoch=self.steps.ends_epoch(s)) for s in self.validate_at} if validator else {},
            self.checkpoint_at,
            clocked=plan.checkpoint_every == "auto",
            cost=cost,
            recomputes=lambda: self.memory.fit.again,
        )
        self.snapshots = Snapshots(self.model, stepper.optimizer, self.memory.device)
        self.writer = Writer()
        data = [len(stepper.train.rows), stepper.train.tokens]
        chosen = stepper.chosen.values()
        self.state = State(identity={**plan.identity(), "chosen": chosen, "data": data, "start": start})
        self.state = self.state.of_job(plan.job_id)
        self.forecast = forecast
        self.spending = spending
        self.estimated: Estimated | None = None
        self.best_adapter: dict[str, Any] | None = None
        self.here = 0.0
        """Seconds of the steps of this process."""
        self._under_way = 0
        """The step that was begun last."""
        self._kept = 0
        """The step whose state was written last; `_written_at`: when, by the monotonic clock; `_seconds_stopped`: so
        long training stopped for it."""
        self._written_at = self._seconds_stopped = 0.0

    @property
    def stopped_early(self) -> bool:
        return not self.over and self.state.best.exhausted(self.patience)

    @property
    def over(self) -> bool:
        return self.state.step >= self.steps.total or self.diverged_at is not None

    @property
    def diverged_at(self) -> int | None:
        """The step at which training ended because the loss was no longer a number; None: it did not."""
        return self.state.step if self.state.skipped_in_a_row >= MOST_SKIPPED else None

    def run(self) -> None:
        """Train to the end, until early stopping or until the loss is no longer a number; then put the adapter with the
        best validation loss into the model.

        Raises:
            Interrupted: asked to stop; a checkpoint was written.
            InputError: `out_of_memory` or `training_diverged`.
            OSError, SafetensorError: a checkpoint could not be written.
        """
        try:
            self._run()
            self.writer.wait()
        except Exception:
            with contextlib.suppress(Exception):  # what ended the training is more telling
                self.writer.wait()
            raise
        self._raise_if_lost()
        if self.best_adapter is not None and self.state.best.step != self.state.step:
            load_adapter_tensors(self.model, self.best_adapter)

    def _run(self) -> None:
        if self.memory.device.type == "cuda" and self.state.fit is None:
            dry_run(self.stepper)
            fit = self.memory.fit
            self.reporter.send(
                PhaseBegan(at=time.time(), phase="fit", micro_tokens=fit.micro_tokens, recompute=fit.recompute)
            )
        if self.forecast is not None:
            self.estimated = self.forecast.message(self.memory.fit, self.state.step)
            self.reporter.send(self.estimated)
            if self.spending is not None:
                tokens = self.forecast.planner.data.tokens
                self._end(self.spending.refused(self.state, self.steps.total, self.estimated, tokens))
        self.memory.lowered = self._lowered
        self.reporter.follow(self.pace)
        first, seconds_before = self.state.step, self.state.seconds
        began = self._written_at = time.monotonic()
        while not self.over and not self.stopped_early:
            if self.state.step == first or self.steps.ends_epoch(self.state.step):
                self.reporter.phase(f"epoch {self.steps.position(self.state.step)[0] + 1}")
            row = self._step()
            self.writer.check()
            self.here = time.monotonic() - began
            self.state.seconds = seconds_before + self.here
            if row is None:
                if self.state.step not in (first, self._kept):
                    self._checkpoint(self.reporter.rows()[-1])
                self.writer.wait()
                raise Interrupted
            step = self.state.step
            if step in self.validate_at and self.state.changed:
                with self.pace.validating(step):
                    row = row.model_copy(update=self._validate())
            self.reporter.step(row)
            if step in self.checkpoint_at or self.stopped_early or self._checkpoint_due():
                started = time.monotonic()
                with self.pace.checkpointing():
                    self._checkpoint(row)
                self._written_at = time.monotonic()
                self._seconds_stopped = self._written_at - started
            if self.spending is not None and not self.over:
                self._end(self.spending.over(self.state, self.steps.total), row)

    def _end(self, error: InputError | None, row: StepRow | None = None) -> None:
        """End all processes at the same step, if the budget of any is spent. `row`: of the last step, if one was taken.

        Raises:
            InputError: the error of this process, or the same in general.
        """
        if not self.memory.group.any(error is not None):
            return
        if row is not None and self.state.step != self._kept:
            self._checkpoint(row)
        self.writer.wait()
        raise error or InputError("budget_spent", f"the budget is spent at step {self.state.step}", "budget")

    def resume(self, folder: Path) -> None:
        """Restore the checkpoint in `folder`, so that `run` continues from there.

        Raises:
            InputError: `checkpoint_mismatch`: it was made with other settings.
        """
        tensors, documents = checkpoints.read(folder)
        state = read_state(documents[checkpoints.STATE], self.state.identity)
        if tensors["adapter"].keys() != adapter_tensors(self.model).keys():
            raise InputError(
                "checkpoint_mismatch",
                "the checkpoint is of an adapter on other layers: start anew without resume_from",
                "resume_from",
            )
        self.state = state.of_job(self.plan.job_id)
        checkpoints.restore(self.model, self.stepper.optimizer, tensors)
        self.best_adapter = tensors.get("best")
        if self.state.fit is not None:
            self.memory.use(self.state.fit)
        self.reporter.start_rows(documents["metrics.jsonl"])

    def _step(self) -> StepRow | None:
        """Take one optimizer step. None when interrupted."""
        state = self.state
        self._under_way = state.step + 1
        self.pace.begin_step()
        stepped = self.stepper.take(state.step, goes_on=self._goes_on(state.step + 1))
        if stepped is None:
            return None
        state.step += 1
        self.pace.end_step(state.step, stepped.tokens, stepped.seconds)
        state.fit = self.memory.fit
        state.trained_tokens += stepped.trained_tokens
        state.tokens += stepped.tokens
        measured: dict[str, Any] = {"skipped": True}
        if stepped.skipped:
            state.skipped += 1
            state.skipped_in_a_row += 1
        else:
            state.skipped_in_a_row = 0
            loss_sum, count = state.since_validation
            state.since_validation = (loss_sum + stepped.loss, count + 1)
            measured = {
                "train_loss": stepped.loss,
                "train_mean_token_accuracy": stepped.accuracy,
                "grad_norm": stepped.grad_norm,
            }
        return StepRow(
            step=state.step,
            total_steps=self.steps.total,
            epoch=round(self.steps.epochs_done(state.step), 4),
            learning_rate=stepped.learning_rate,
            tokens=stepped.tokens,
            tokens_per_second=round(stepped.tokens / stepped.seconds, 1),
            **measured,
        )

    def _goes_on(self, step: int) -> bool:
        """Whether only another step follows `step` finished ones, as far as can be said before the last of them."""
        foreseen = step in self.validate_at or step in self.checkpoint_at
        return not (foreseen or self._checkpoint_due(self.pace.step_seconds))

    def _lowered(self, fit: Fit) -> None:
        """Memory ran out in the step under way, or in the validation after it, which is done again with less."""
        found = {"step": self._under_way, "micro_tokens": fit.micro_tokens, "recompute": fit.recompute}
        self.state.lowered = [*self.state.lowered, Lowered.model_validate(found)]
        self.reporter.send(MemoryLowered.model_validate({"at": time.time(), **found}))

    def _raise_if_lost(self) -> None:
        """Nothing is worth keeping if training diverged before a validation, or took no step at all."""
        state = self.state
        if state.changed and (self.diverged_at is None or self.best_adapter is not None):
            return
        raise InputError(
            "training_diverged",
            f"the loss is no longer a number at step {state.step - state.skipped_in_a_row + 1}, and not at the "
            f"{state.skipped_in_a_row} steps from there, either: lower hyperparameters.learning_rate_multiplier",
            "hyperparameters.learning_rate_multiplier",
        )

    def _validate(self) -> dict[str, float]:
        """Measure the validation loss, and keep the best adapter. Returns the `valid_*` fields of the step's row."""
        assert self.validator is not None
        state = self.state
        quick, full = self.validator.measure(ends_epoch=self.steps.ends_epoch(state.step))
        loss_sum, count = state.since_validation
        if count and math.isfinite(quick.loss):
            state.points = [*state.points, Point(state.step, loss_sum / count, quick.loss)]
        state.since_validation = (0.0, 0)
        weights = self.validator.sample_weights
        # A checkpoint of an earlier version does not have the losses of the best validation.
        risen = not state.best_losses or above_noise(state.best_losses, quick.losses, weights)
        state.best = state.best.after(state.step, quick.loss, risen=risen)
        if state.best.step == state.step:
            self.best_adapter = adapter_tensors(self.model)
            state.best_losses = list(quick.losses)
        figures = {"valid_loss": quick.loss, "valid_mean_token_accuracy": quick.accuracy}
        if full is not None:
            figures |= {"full_valid_loss": full.loss, "full_valid_mean_token_accuracy": full.accuracy}
        # a loss that is no number is no figure: neither events nor JSON can hold it
        return {name: value for name, value in figures.items() if math.isfinite(value)}

    def _checkpoint_due(self, in_seconds: float = 0.0) -> bool:
        """Whether the clock asks for a checkpoint, or will in so many seconds."""
        if self.plan.checkpoint_every != "auto" or self.writer.busy:
            return False
        return checkpoint_overdue(time.monotonic() + in_seconds - self._written_at, self._seconds_stopped)

    def _checkpoint(self, row: StepRow) -> None:
        """Copy the state, and let the thread write it: where an adapter is listed, the adapter by itself, too. The
        state that is written names the listed checkpoints up to this step, so they come first. Of a group, the leader
        does this: the others have the same state."""
        if not self.memory.group.leads:
            return
        self.stepper.forget_ahead()  # what the next step has drawn already is no part of the state
        self.writer.wait()  # a snapshot takes the memory of the one before
        state, out, best = self.state, self.reporter.out, self.best_adapter
        self._kept = step = state.step
        losses = {"train_loss": row.train_loss, "valid_loss": row.valid_loss}
        config = None
        if step in self.listed_at:
            config = adapter_config(self.model, self.plan)
            info = CheckpointInfo(step=step, prefix=f"{checkpoints.LISTED}/step-{step}/", **losses)
            state.checkpoints = [*(c for c in state.checkpoints if c.step != step), info]
        document, rows_size = state.model_dump_json().encode(), self.reporter.rows_size
        snapshot = self.snapshots.take()

        def write() -> None:
            snapshot.wait()
            written: list[tuple[Path, bool]] = []
            tensors = {**snapshot.tensors, **({"best": best} if best is not None else {})}
            if config is not None:
                files, adapter = {"adapter_config.json": config}, {"adapter_model": tensors["adapter"]}
                written.append((checkpoints.write(out / checkpoints.LISTED, step, adapter, files), True))
            with self.reporter.rows_file.open("rb") as file:
                documents = {checkpoints.STATE: document, "metrics.jsonl": file.read(rows_size)}
            written.append((checkpoints.write(out / checkpoints.RESUME, step, tensors, documents), False))
            for path, listed in written:  # whoever hears of what is listed can continue from there
                where = str(path.relative_to(out))
                self.reporter.send(CheckpointWritten(at=time.time(), path=where, step=step, listed=listed, **losses))
            if not self.reporter.events:  # nobody uploads them
                checkpoints.remove_older(out / checkpoints.RESUME, step)

        self.writer.begin(write)

"""The model card that travels with an adapter."""

from __future__ import annotations

import yaml

from services.trainer.domain.memory_plan import GIB
from services.trainer.engine.messages import TrainingResult


def model_card(result: TrainingResult) -> str:
    """The text of an adapter's `README.md`, made from the result of the run; it begins with metadata for the hub."""
    metadata = {
        "base_model": result.base,
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "tunestream", "dpo" if result.method == "dpo" else "sft"],
    }
    valid = "none" if result.valid_loss is None else f"{result.valid_loss:.4f}"
    chosen = "\n".join(f"| {name} | {value} |" for name, value in result.hyperparameters.items())
    return f"""---
{yaml.safe_dump(metadata, sort_keys=False).strip()}
---

# {result.model}

A LoRA adapter of rank {result.rank} for `{result.base}`, tuned by Tunestream ({result.method}).

| | |
|---|---|
| training examples | {result.train_examples} ({result.dropped_examples} dropped, \
{result.truncated_examples} truncated) |
| validation examples | {result.valid_examples} |
| trained tokens | {result.trained_tokens} |
| steps | {result.steps} of {result.total_steps}, adapter of step {result.saved_step} saved{_skipped(result)} |
| checkpoints | {_checkpoints(result)} |
| training loss (last epoch) | {result.train_loss:.4f} |
| validation loss | {valid} |
| verdict | {result.overfitting.verdict}: {result.overfitting.reason} |
| as served | {result.served or "not compared with the server"} |
| attention in training | {result.attention} |
| estimate and outcome | {compared(result) or "not estimated"}{_lowered(result)} |
| parts of the base that are not tuned | {"; ".join(result.not_tuned) or "none"} |

| hyperparameter | value |
|---|---|
{chosen}
"""


def compared(result: TrainingResult) -> str:
    """Estimate and outcome, for people; an empty text: there was no estimate."""
    if result.estimated_memory_bytes is None or result.peak_memory_bytes is None:
        return ""
    estimated, used = result.estimated_memory_bytes / GIB, result.peak_memory_bytes / GIB
    memory = f"estimated {estimated:.1f} GiB, used {used:.1f}"
    if result.estimated_seconds is None:
        return memory
    return f"{memory}; estimated {result.estimated_seconds:.0f} s, took {result.seconds:.0f}"


def _lowered(result: TrainingResult) -> str:
    """What to say of memory that ran out; nothing if it did not."""
    if not result.lowered:
        return ""
    steps = ", ".join(str(each.step) for each in result.lowered)
    return f"; memory ran out at step {steps}, and the micro-batches became smaller"


def _checkpoints(result: TrainingResult) -> str:
    if not result.checkpoints:
        return "none"
    steps = ", ".join(str(info.step) for info in result.checkpoints)
    return f"at the ends of epochs, steps {steps}; that of step N answers as `{result.model}:ckpt-step-N`"


def _skipped(result: TrainingResult) -> str:
    """What to say of steps that were not taken; nothing if all were."""
    if not result.skipped_steps:
        return ""
    skipped = f"; {result.skipped_steps} skipped, because their loss or its gradient was not a finite number"
    if result.diverged_at is None:
        return skipped
    return f"{skipped}; training ended at step {result.diverged_at}, because too many of them followed each other"

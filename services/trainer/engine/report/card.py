"""The model card that travels with an adapter."""

from __future__ import annotations

import yaml

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
| steps | {result.steps} of {result.total_steps}, adapter of step {result.saved_step} saved |
| training loss (last epoch) | {result.train_loss:.4f} |
| validation loss | {valid} |
| verdict | {result.overfitting.verdict}: {result.overfitting.reason} |

| hyperparameter | value |
|---|---|
{chosen}
"""

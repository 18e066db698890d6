"""The trainer: tunes a LoRA adapter on a validated dataset (`dataset.validated` -> `training.completed`)."""

"""The pure decisions of the trainer: the plan, automatic hyperparameters, schedules, whether a run overfitted."""

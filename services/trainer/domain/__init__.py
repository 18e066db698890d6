"""The trainer's decisions, pure: the plan, automatic hyperparameters, schedules, whether a run overfitted."""

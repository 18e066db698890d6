"""The trainer's decisions: the plan, automatic hyperparameters, schedules, the overfitting verdict. Pure."""

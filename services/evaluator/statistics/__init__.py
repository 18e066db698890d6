"""Confidence intervals and macro F1. This needs numpy and a random generator, which the pure domain does without."""

"""Confidence intervals by resampling. This needs numpy and a random generator, which the pure domain does without."""

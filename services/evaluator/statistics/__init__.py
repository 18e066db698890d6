"""Confidence intervals by resampling. They need numpy and a seeded generator, so they are not in the pure domain."""

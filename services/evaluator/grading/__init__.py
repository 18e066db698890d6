"""Graders of the job as metrics, and a judge of pairs of answers."""

"""Chaos: a stack at work, faults drawn from a seed, and an oracle that compares what was acknowledged with what is
there. `python -m tests.chaos --faults 20 --seed 1`."""

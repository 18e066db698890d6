"""Benchmarks of what is found in datasets: how much of it, and how fast."""

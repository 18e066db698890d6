"""Benchmarks of what users call over HTTP, and the load for them."""

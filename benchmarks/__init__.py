"""Measurements of a running Tunestream, each beside a named baseline in the same run."""

"""Measurements of a running Tunestream, each against a named rival in the same run."""

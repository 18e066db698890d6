"""Measures a running Tunestream. Each figure is printed beside a named baseline from the same run."""

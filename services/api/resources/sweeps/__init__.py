"""/sweeps: create, list, retrieve, cancel, report."""

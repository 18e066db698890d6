"""Sweeps on the command line: start one, follow it, list, show and cancel."""

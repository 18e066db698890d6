"""Synthesis on this machine: what is planned, how far it is, and what it came to."""

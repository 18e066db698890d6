"""Sweeps: the decisions, the controller over a ledger in memory, the page."""

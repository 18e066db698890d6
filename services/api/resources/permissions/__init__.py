"""Permissions: which other projects may use a tuned model, or a checkpoint of one."""

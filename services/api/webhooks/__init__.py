"""Sends webhooks: of all replicas one tells the endpoints of a project of the jobs that have ended."""

"""Ingest: what is dropped into the bucket, or announced by a stranger, becomes a job."""

"""The ingest service: makes a job of every dataset that is dropped into the bucket or announced by an event."""

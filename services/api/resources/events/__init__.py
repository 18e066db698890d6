"""/jobs/{id}/events: the history of a job."""

"""/jobs: list, retrieve, cancel, retry."""

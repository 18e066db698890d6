"""/jobs: list, retrieve, cancel."""

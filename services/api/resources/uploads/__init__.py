"""/v1/uploads: a large file in parts, which may come in parallel."""

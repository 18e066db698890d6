"""/v1/files: what a project has stored, and the result files of its jobs."""

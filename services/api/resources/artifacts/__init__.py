"""/jobs/{id}/files and /jobs/{id}/report: the artifacts of a job, which are the files that its stages wrote."""

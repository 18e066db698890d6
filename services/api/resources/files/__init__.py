"""/jobs/{id}/files and /jobs/{id}/report: the files of a job."""

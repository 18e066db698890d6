"""The service's side of a training: the child process, its spans, the upload of checkpoints, the turn on the GPU."""

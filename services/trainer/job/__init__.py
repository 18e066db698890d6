"""The stage's side of a training: the child process, its spans, the upload of checkpoints and the turn of the GPU."""

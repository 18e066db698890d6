"""What a client may ask for, and how a job, its events and its checkpoints look to it. Pure: values in, JSON out."""

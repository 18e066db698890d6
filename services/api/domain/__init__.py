"""What is known of a job, how a fact changes it, and how it is shown. Pure."""

"""/fine_tuning/alpha/graders: validate a grader, and run it on one sample."""

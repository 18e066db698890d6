"""What a grader is, and how it scores a sample: decisions without I/O."""

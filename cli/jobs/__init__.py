"""What a job looks like from outside: its settings, its progress, its result."""

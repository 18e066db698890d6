"""Many texts at once, by numpy: what would take a call of Python for each word, or for each question about a text."""

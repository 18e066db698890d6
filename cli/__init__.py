"""The `tunestream` command: the embedded stack, and everything a user does with it."""

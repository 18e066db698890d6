"""The parts of `tunestream curate`: the rows of a file, how one is shown and edited, and what was decided of each."""

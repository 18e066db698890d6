"""Dead letters: what could not be handled, why, and once more."""

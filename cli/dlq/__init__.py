"""Dead letters: events that a service could not handle, read from their topics and sent again."""

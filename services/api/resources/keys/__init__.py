"""/keys: the API keys."""

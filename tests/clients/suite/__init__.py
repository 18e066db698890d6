"""The checks for the Python client. `__main__.py` runs them, with the `openai` package of whatever Python runs it."""

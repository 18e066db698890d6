"""Which kinds of conversation can be trained on the chat templates of real families: `python -m tests.families`."""

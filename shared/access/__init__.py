"""Who asks, and what they may do: API keys, their rights and their projects."""

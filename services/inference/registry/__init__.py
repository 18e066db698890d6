"""The models that can be asked for: tuned models, aliases, and the adapters that vLLM holds."""

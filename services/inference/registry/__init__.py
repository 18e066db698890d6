"""registry: the models that can be asked for. Tuned models, aliases, and the adapters that vLLM holds."""

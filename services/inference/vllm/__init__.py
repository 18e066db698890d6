"""The vLLM server behind the gateway: starts it, watches it, puts it to sleep, and loads adapters into it."""

"""vllm: the vLLM server behind the gateway. Starts it, watches it, puts it to sleep, and gives it adapters."""

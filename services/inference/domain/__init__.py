"""The decisions of serving: what a model id means, which adapters may be served, which version an alias names."""

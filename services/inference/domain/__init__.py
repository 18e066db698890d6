"""The decisions of serving: which adapters may be served, which version an alias names, how many tokens were used."""

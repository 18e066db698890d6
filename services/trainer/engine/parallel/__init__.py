"""One training in several processes, one per GPU: how they are started and watched, and what they agree on."""

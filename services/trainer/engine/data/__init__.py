"""From rows to batches: chat templates, tokens, the mask of what is trained on, padding."""

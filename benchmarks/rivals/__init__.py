"""What the training engine is measured against, on the same documents: the recipe of the usual tutorial, TRL's trainer
and Unsloth, each in a process of its own."""

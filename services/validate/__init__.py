"""validate: from an uploaded dataset to checked, counted and split rows."""

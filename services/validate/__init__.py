"""The validate service: checks an uploaded dataset, counts its tokens and splits it."""

"""Rivals: models behind endpoints of others, whose quality, speed and price stand beside those of the tuned model."""

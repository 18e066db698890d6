"""Writes the datasets of other tasks than free answers: labels and tool calls."""

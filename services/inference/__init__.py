"""Serves the base and every tuned model through one OpenAI-compatible endpoint, and moves aliases to better models."""

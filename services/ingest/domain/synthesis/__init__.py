"""Synthetic datasets: what to ask a strong model for, what becomes of its replies, and what that may cost. Pure."""

"""Makes datasets with a strong model: asks an endpoint within limits and a budget, and keeps every reply."""

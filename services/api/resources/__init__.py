"""The HTTP resources, one folder each: `routes.py`, the pure `domain.py`, and `store.py` where it reads objects."""

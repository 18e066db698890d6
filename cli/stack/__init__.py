"""The embedded stack: object store, broker and services as supervised processes, without Docker."""

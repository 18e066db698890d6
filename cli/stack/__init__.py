"""The embedded stack: the real parts and the services as supervised processes, without Docker."""

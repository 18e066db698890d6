"""Decisions about sweeps: what may be searched, how trials stand, when another one may start, and how a sweep ends."""

"""Seeded generators of hostile input, for the fuzz suite: what strangers may send, drop and ask."""

"""Tests of what a run writes for people and for its parent."""

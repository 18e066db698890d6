"""Tests of the experiment trackers."""

"""Tests of the validate service."""

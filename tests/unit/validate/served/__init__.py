"""Tests of the comparison with the render server."""

"""Tests of the advice whether to fine-tune."""

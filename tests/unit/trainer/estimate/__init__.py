"""Tests of the estimate before a job."""

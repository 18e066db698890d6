"""Proofs that take longer than CI may: `make prove-NAME`. Their output is kept in docs/proofs."""

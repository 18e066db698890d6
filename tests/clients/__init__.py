"""The official clients, old and new, in environments of their own, against a running stack."""

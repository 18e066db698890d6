"""The janitor: the one role that deletes in the object store, with a lease in the ledger and credentials of its own."""

"""api: serves every job as one JSON object. It keeps them in SQLite, built from the ledger and the topics."""

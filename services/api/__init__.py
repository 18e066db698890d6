"""api: every job as one JSON object, projected from the ledger and the topics into SQLite, over HTTP."""

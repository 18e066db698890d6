"""Sets up the full stack: makes its secrets, and creates what must exist in Kafka and the object store before it
starts."""

"""How the full stack is set up: its secrets, and what has to exist in Kafka and the object store before it starts."""

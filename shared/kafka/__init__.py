"""The connection to Kafka: consumers and the producer, CloudEvents headers, dead letters, access and its diagnosis."""

"""Examples: a demo, a tiny base model, datasets to tune it on, and clients that only speak S3, Kafka or HTTP."""

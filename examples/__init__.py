"""What a newcomer runs first: a tiny base model, datasets to tune it on, and clients that speak S3, Kafka and HTTP."""

"""The services. They never import each other; they talk through Kafka, the object store and HTTP."""

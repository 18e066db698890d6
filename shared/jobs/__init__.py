"""What a request for a job means, whoever asks: the model that it names, and the manifest that it makes."""

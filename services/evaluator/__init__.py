"""The evaluator service: measures the tuned model against its base, through the endpoint that serves both."""

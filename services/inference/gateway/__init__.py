"""The HTTP routes of the endpoint. Generations go to vLLM, files and fine-tuning jobs to the api service, and the
administrative routes deploy models by hand."""

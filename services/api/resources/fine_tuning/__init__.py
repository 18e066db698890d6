"""/v1/fine_tuning/jobs: the jobs, as OpenAI's clients speak of them."""

"""Graders in the form of the OpenAI API, for `graders/run` and for evaluations: `domain` is pure, `run.py` runs one,
`judge.py` asks models."""

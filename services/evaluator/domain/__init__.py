"""The pure decisions of the evaluator: what is asked, how answers are scored, and whether the model is good enough."""

"""The gate: whether a tuned model may be promoted. `verdict.py` decides and gives the reasons; the others look for one
fault each."""

"""The parts of the chaos run that decide: the schedule and the oracle."""
